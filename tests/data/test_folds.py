"""Assignment to folds."""

import pytest

from voxloss.data.folds import assign_folds, split_of
from voxloss.utilities.errors import InputError

IDS = [f"case_{number:05}" for number in range(17)]


def test_every_case_is_in_one_fold_and_sizes_differ_by_at_most_one():
    folds = assign_folds(IDS, 5, seed=3)
    assert sorted(case_id for fold in folds for case_id in fold) == IDS
    assert sorted(map(len, folds)) == [3, 3, 3, 4, 4]


def test_the_assignment_depends_on_the_set_and_the_seed_alone():
    assert assign_folds(IDS, 5, seed=3) == assign_folds(IDS[::-1], 5, seed=3)
    assert assign_folds(IDS, 5, seed=3) != assign_folds(IDS, 5, seed=4)


def test_the_known_assignment_stays_so_that_published_folds_can_be_made_again():
    assert assign_folds(list("abcdef"), 3, seed=0) == KNOWN


KNOWN = [["b", "f"], ["c", "d"], ["a", "e"]]


def test_training_inner_and_validation_share_no_case():
    folds = assign_folds(IDS, 4, seed=0)
    for fold in range(4):
        split = split_of(folds, fold, seed=0, inner_share=0.2)
        parts = [set(split.training), set(split.inner), set(split.validation)]
        assert set.union(*parts) == set(IDS)
        assert sum(map(len, parts)) == len(IDS)
        assert len(split.inner) == round(0.2 * (len(IDS) - len(split.validation)))
        assert split.inner == split_of(folds, fold, seed=0, inner_share=0.2).inner
    assert split_of(folds, 0, seed=0).inner == ()


def test_too_few_cases_and_unknown_folds_are_refused():
    with pytest.raises(InputError, match=r"5 folds need at least 5 cases; there are 3 \(--splits.folds 3\)"):
        assign_folds(IDS[:3], 5, seed=0)
    folds = assign_folds(IDS[:4], 2, seed=0)
    with pytest.raises(InputError, match="no fold 2"):
        split_of(folds, 2, seed=0)
    with pytest.raises(InputError, match="leaves none to train on"):
        split_of(folds, 0, seed=0, inner_share=0.9)
