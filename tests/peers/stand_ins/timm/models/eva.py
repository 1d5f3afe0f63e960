from timm.layers import Mlp


class EvaBlock(Mlp):
    pass
