//! Reads PyTorch checkpoints without executing them and writes ferroyolo model files.
