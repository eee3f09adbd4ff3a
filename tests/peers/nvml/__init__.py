"""Stand-ins for `pynvml` and `nvidia-smi`, for machines without a GPU.

CUDA_STAND_IN names a folder with files for what processes hold, as in `tests/peers/libcuda.c`.
Programs see this GPU if this folder comes first on their PYTHONPATH and PATH.
"""
