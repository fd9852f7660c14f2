// Parameters from the host, and behind them what was found. Words are counted up by many invocations at once, so that all
// of them are atomic.

@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;

fn word_at(at: u32) -> u32 {
    return atomicLoad(&found[at]);
}

fn put(at: u32, value: u32) {
    atomicStore(&found[at], value);
}

// Words of a row: cell of all images, class (or where its logits are), the bits of its logit and of the objectness, four
// values for the sides of the box, and what else there is.
const CELL: u32 = 0u;
const CLASS: u32 = 1u;
const LOGIT: u32 = 2u;
const OBJECTNESS: u32 = 3u;
const SIDES: u32 = 4u;
const EXTRA: u32 = 8u;

const SIGN: u32 = 0x80000000u;
const INFINITY_BITS: u32 = 0x7f800000u;
const NAN_BITS: u32 = 0x7fc00000u;

fn bits_at(at: u32) -> u32 {
    return bitcast<u32>(load1(at));
}

// Whether a value is neither NaN nor infinite, unless negative. Floats are looked at as bits, since a compiler may take it
// that there is nothing else but numbers.
fn is_below_infinity(value: f32) -> bool {
    let bits = bitcast<u32>(value);
    return (bits & ~SIGN) < INFINITY_BITS || bits == (SIGN | INFINITY_BITS);
}

// A number above zero that grows with the value of a float: the same for both zeros, and for NaN and negative infinity.
fn key_of(bits: u32) -> u32 {
    if (bits & ~SIGN) > INFINITY_BITS {
        return ~(SIGN | INFINITY_BITS);
    }
    if bits < SIGN || bits == SIGN {
        return bits | SIGN;
    }
    return ~bits;
}
