def _absent(*_, **__):
    raise NotImplementedError("timm is not installed")


class PatchDropout:
    __init__ = _absent


class RotaryEmbeddingCat:
    __init__ = _absent


class DropPath:
    __init__ = _absent


class SwiGLU:
    __init__ = _absent


class GluMlp:
    __init__ = _absent


class Mlp:
    __init__ = _absent


trunc_normal_ = apply_keep_indices_nlc = use_fused_attn = apply_rot_embed_cat = _absent
