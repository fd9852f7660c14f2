//! Arenas full of noise, and comparisons.

use ferroyolo_kernels::{Activation, Arena, Context, Isa, Threads, View};
use proptest::prelude::ProptestConfig;

/// Relative error of a sum of products, in units of the sum of their magnitudes.
pub const SUM_TOLERANCE: f64 = 4e-6;

/// Relative error of an activation of a small number.
pub const ACTIVATION_TOLERANCE: f64 = 8e-7;

/// How much the relative error of an activation grows with the magnitude of its argument: the exponential takes the
/// argument times a rounded constant.
pub const ACTIVATION_TOLERANCE_OF_ARGUMENT: f64 = 1e-7;

/// How far off the activation of `x` may be if it should be `want`.
pub fn activation_error(x: f64, want: f64) -> f64 {
    (ACTIVATION_TOLERANCE + ACTIVATION_TOLERANCE_OF_ARGUMENT * x.abs()) * want.abs()
}

/// Numbers of threads that each case runs with.
const THREADS: [usize; 2] = [1, 3];

/// A small generator of noise (xorshift64*), the same on every machine.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        self.bits() as f32 / (1u64 << 31) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Places buffers one after the other, with a gap between them.
#[derive(Default)]
pub struct Layout {
    pub len: usize,
}

impl Layout {
    /// A buffer of `total` channels, and the view of `c` of them from `from` on.
    pub fn slice(&mut self, nhw: [usize; 3], total: usize, from: usize, c: usize, halo: usize) -> View {
        let [n, h, w] = nhw;
        let start = self.len + 3;
        self.len = start + View::buffer_len(n, h, w, total, halo) + 5;
        View::buffer(start, n, h, w, total, halo).channels(from, c)
    }

    pub fn buffer(&mut self, nhw: [usize; 3], c: usize, halo: usize) -> View {
        self.slice(nhw, c, 0, c, halo)
    }

    pub fn scratch(&mut self, len: usize) -> ferroyolo_kernels::Scratch {
        let offset = self.len;
        self.len += len;
        ferroyolo_kernels::Scratch { offset, len }
    }
}

/// An arena of noise in which the halos of these views are zero.
pub fn noisy_arena(len: usize, seed: u64, zero_halos: &[View]) -> Arena {
    let mut arena = Arena::new(len).unwrap();
    let mut noise = Noise::new(seed);
    arena.as_mut_slice().iter_mut().for_each(|x| *x = noise.float());
    for view in zero_halos {
        let halo = view.halo as isize;
        for image in 0..view.n {
            for y in -halo..view.h as isize + halo {
                for x in -halo..view.w as isize + halo {
                    let inside = (0..view.h as isize).contains(&y) && (0..view.w as isize).contains(&x);
                    if !inside {
                        let at = at(view, image, y, x);
                        arena.as_mut_slice()[at..at + view.c].fill(0.0);
                    }
                }
            }
        }
    }
    arena
}

/// The first channel of a pixel that may lie in the halo.
pub fn at(view: &View, image: usize, y: isize, x: isize) -> usize {
    let start = (view.offset + image * view.image_stride) as isize;
    (start + y * view.row_stride as isize + x * view.pixel_stride as isize) as usize
}

pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::None => x,
        Activation::Silu => x * sigmoid,
        Activation::Relu => x.max(0.0),
        Activation::Sigmoid => sigmoid,
    }
}

/// A reference value and how far off a kernel may be.
pub type Expected = (f64, f64);

/// The activation of a sum of products, to which a residual may be added. `magnitude` is the sum of the products'
/// magnitudes, and the bias's.
///
/// The errors of the sum and of its activation stay as large as they are where the residual cancels the activation.
pub fn activated(act: Activation, sum: f64, magnitude: f64, residual: Option<f64>) -> Expected {
    let without = activation(act, sum);
    let want = without + residual.unwrap_or(0.0);
    let rounding = residual.map_or(0.0, |_| f64::from(f32::EPSILON) / 2.0 * want.abs());
    (want, SUM_TOLERANCE * magnitude + activation_error(sum, without) + rounding)
}

/// How many cases of a property are tried: `usual`, or what `PROPTEST_CASES` asks for.
pub fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}

/// Runs a kernel on every instruction set and number of threads.
///
/// The output must be what `expect` says for each image, row, column and channel; nothing else of the arena may change
/// but the scratch; and all numbers of threads must agree to the bit.
pub fn check(
    arena: &Arena,
    output: &View,
    scratch: ferroyolo_kernels::Scratch,
    run: impl Fn(Context<'_>, &mut Arena) + Sync,
    expect: impl Fn(&[f32], usize, usize, usize, usize) -> Expected,
) {
    let before = arena.as_slice();
    let mut expected = vec![None; before.len()];
    for image in 0..output.n {
        for y in 0..output.h {
            for x in 0..output.w {
                for c in 0..output.c {
                    expected[output.index(image, y, x) + c] = Some(expect(before, image, y, x, c));
                }
            }
        }
    }
    for isa in Isa::available() {
        let mut first: Option<Vec<f32>> = None;
        for n in THREADS {
            let threads = Threads::new(n).unwrap();
            let mut copy = Arena::new(before.len()).unwrap();
            copy.as_mut_slice().copy_from_slice(before);
            threads.install(|| run(Context { isa, threads: &threads }, &mut copy));
            for (i, (&got, want)) in copy.as_slice().iter().zip(&expected).enumerate() {
                match want {
                    Some((want, tolerance)) => {
                        let close = (f64::from(got) - want).abs() <= *tolerance
                            || f64::from(got) == *want
                            || (got.is_nan() && want.is_nan());
                        let position = (i - output.offset) % output.pixel_stride;
                        assert!(
                            close,
                            "{isa:?}, {n} threads: got {got}, expected {want} +- {tolerance} at channel {position}"
                        );
                    }
                    None if (scratch.offset..scratch.offset + scratch.len).contains(&i) => {}
                    None => {
                        let same = got.to_bits() == before[i].to_bits();
                        assert!(same, "{isa:?}, {n} threads: element {i} beside {output:?} was written");
                    }
                }
            }
            let bits = |i: usize, x: &[f32]| x[i].to_bits();
            if let Some(first) = &first {
                for i in (0..before.len()).filter(|&i| expected[i].is_some()) {
                    assert_eq!(
                        bits(i, first),
                        bits(i, copy.as_slice()),
                        "{isa:?}: {n} threads differ at {i}"
                    );
                }
            }
            first.get_or_insert_with(|| copy.as_slice().to_vec());
        }
    }
}
