//! ferroyolo: shaders.
