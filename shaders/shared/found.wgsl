// Parameters from the host, and behind them what was found. Words are counted up by many invocations at once, so that all
// of them are atomic.

@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;
