"""Results of trainings that were not voxloss's own, as a study's folder that `voxloss report` reads."""

from voxloss.study.imported.nnunet import import_nnunet
from voxloss.study.imported.table import import_table

__all__ = ["import_nnunet", "import_table"]
