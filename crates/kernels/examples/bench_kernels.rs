//! Measures the kernels on the shapes of the nano models.
//!
//! `cargo run --release -p ferroyolo-kernels --example bench_kernels -- [filter] [isa] [threads]`

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use ferroyolo_kernels::{
    Activation, Arena, Attention, Context, Conv2d, ConvSpec, ConvTranspose2d, Depthwise2d, DepthwiseSpec,
    Isa, MaxPool2d, PackedConv, PackedConvTranspose, PackedDepthwise, Scratch, Threads, View, activate, add,
    attention, attention_scratch_len, avg_pool2d, conv_transpose2d, conv2d, depthwise2d, dfl_planar,
    global_avg_pool, max_over_channels, max_pool2d, resize_bilinear, store_planar, upsample_nearest,
};

/// Rounds over all benches; the minimum and the median over them are shown.
const ROUNDS: usize = 15;

/// Seconds that a measurement takes at least.
const LEAST: f64 = 0.004;

struct Bench {
    name: String,
    /// Floating point operations, or bytes for those that only move data.
    work: f64,
    unit: &'static str,
    run: Box<dyn FnMut()>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filter = args.first().cloned().unwrap_or_default();
    let isas = match args.get(1).map(String::as_str) {
        None | Some("all") => Isa::available(),
        Some(name) => vec![Isa::by_name(name).expect("this CPU has the instruction set")],
    };
    let n_threads = args.get(2).map_or(1, |n| n.parse().expect("a number of threads"));
    let mut benches = vec![];
    for isa in isas {
        for bench in all(isa, n_threads) {
            if bench.name.contains(&filter) {
                benches.push(bench);
            }
        }
    }
    let clock = if n_threads == 1 { thread_time } else { wall };
    let mut peaks = vec![];
    let mut times = vec![vec![]; benches.len()];
    for _ in 0..ROUNDS {
        peaks.push(peak());
        for (bench, times) in benches.iter_mut().zip(&mut times) {
            times.push(measure(&mut bench.run, clock));
        }
    }
    let peak = peaks.iter().copied().fold(0.0, f64::max) * n_threads as f64;
    println!("peak of fused multiplications: {peak:.0} GFLOP/s on {n_threads} threads");
    println!("{:<52} {:>9} {:>9} {:>8} {:>6}", "op/shape/isa", "min us", "median", "G/s", "peak");
    for (bench, mut times) in benches.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let (min, median) = (times[0], times[times.len() / 2]);
        let rate = bench.work / min / 1e9;
        let share = if bench.unit == "F" { format!("{:.0}%", 100.0 * rate / peak) } else { "-".into() };
        println!(
            "{:<52} {:>9.1} {:>9.1} {rate:>7.1}{} {share:>6}",
            bench.name,
            min * 1e6,
            median * 1e6,
            bench.unit
        );
    }
}

/// Seconds of a call, the smallest of several.
fn measure(run: &mut dyn FnMut(), clock: fn() -> f64) -> f64 {
    let mut best = f64::INFINITY;
    let mut total = 0.0;
    while total < LEAST {
        let start = clock();
        run();
        let time = clock() - start;
        best = best.min(time);
        total += time;
    }
    best
}

/// The clock of the wall, for several threads.
fn wall() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// The time that this thread has been on a CPU, so that other processes disturb a measurement less.
#[cfg(target_os = "linux")]
fn thread_time() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the structure has the layout that 64-bit Linux gives it, and is written to only.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn thread_time() -> f64 {
    wall()
}

/// GFLOP/s of fused multiplications on registers alone, on one thread, with the best instruction set.
fn peak() -> f64 {
    let best = Isa::best().name();
    let run = || {
        let (x, y) = (black_box(0.999), black_box(0.001));
        #[cfg(target_arch = "x86_64")]
        match best {
            // SAFETY: this is what `Isa::best` has detected.
            "avx512" => return black_box(unsafe { peak_avx512(x, y) }),
            // SAFETY: this is what `Isa::best` has detected.
            "avx2" => return black_box(unsafe { peak_avx2(x, y) }),
            _ => {}
        }
        black_box(peak_portable(x, y))
    };
    let flops = (PEAK_STEPS * 12 * 16 * 2) as f64;
    flops
        / measure(
            &mut || {
                run();
            },
            thread_time,
        )
        / 1e9
}

/// Steps of a measurement of the peak; each multiplies 12 vectors of 16.
const PEAK_STEPS: usize = 200_000;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn peak_avx512(x: f32, y: f32) -> f32 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_reduce_add_ps, _mm512_set1_ps};
    let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
    let mut acc = [y; 12];
    for _ in 0..PEAK_STEPS {
        for a in &mut acc {
            *a = _mm512_fmadd_ps(*a, x, y);
        }
    }
    let mut sum = 0.0;
    for a in acc {
        sum += _mm512_reduce_add_ps(a);
    }
    sum
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn peak_avx2(x: f32, y: f32) -> f32 {
    use std::arch::x86_64::{_mm256_cvtss_f32, _mm256_fmadd_ps, _mm256_set1_ps};
    let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
    let mut acc = [y; 12];
    for _ in 0..2 * PEAK_STEPS {
        for a in &mut acc {
            *a = _mm256_fmadd_ps(*a, x, y);
        }
    }
    let mut sum = 0.0;
    for a in acc {
        sum += _mm256_cvtss_f32(a);
    }
    sum
}

fn peak_portable(x: f32, y: f32) -> f32 {
    let mut acc = [[y; 4]; 12];
    for _ in 0..4 * PEAK_STEPS {
        acc = acc.map(|row| row.map(|a| a * x + y));
    }
    acc.iter().flatten().sum()
}

fn all(isa: Isa, n_threads: usize) -> Vec<Bench> {
    let mut benches = vec![];
    // (ic, oc, kernel, stride, output height and width)
    let convs = [
        (3, 16, 3, 2, 320),
        (16, 32, 3, 2, 160),
        (32, 64, 3, 2, 80),
        (64, 64, 3, 2, 80),
        (64, 128, 3, 2, 40),
        (128, 128, 3, 2, 40),
        (128, 256, 3, 2, 20),
        (32, 32, 1, 1, 160),
        (48, 64, 1, 1, 160),
        (64, 64, 1, 1, 80),
        (96, 128, 1, 1, 80),
        (256, 64, 1, 1, 80),
        (64, 80, 1, 1, 80),
        (80, 80, 1, 1, 80),
        (192, 128, 1, 1, 40),
        (256, 128, 1, 1, 40),
        (384, 128, 1, 1, 40),
        (256, 256, 1, 1, 20),
        (384, 256, 1, 1, 20),
        (512, 256, 1, 1, 20),
        (8, 16, 3, 1, 160),
        (16, 8, 3, 1, 160),
        (16, 16, 3, 1, 160),
        (32, 32, 3, 1, 160),
        (32, 32, 3, 1, 80),
        (64, 64, 3, 1, 80),
        (64, 64, 3, 1, 40),
        (64, 80, 3, 1, 80),
        (80, 80, 3, 1, 80),
        (128, 64, 3, 1, 40),
        (128, 128, 3, 1, 40),
        (128, 128, 3, 1, 20),
        (256, 64, 3, 1, 20),
    ];
    for (ic, oc, k, stride, size) in convs {
        benches.push(conv(isa, n_threads, ic, oc, k, stride, size));
    }
    for (c, size) in [(64, 80), (80, 80), (128, 40), (80, 40), (256, 20), (80, 20)] {
        benches.push(depthwise(isa, n_threads, c, 3, size));
    }
    for (c, k, size) in [(64, 7, 40), (128, 7, 20), (256, 7, 20), (64, 5, 80)] {
        benches.push(depthwise(isa, n_threads, c, k, size));
    }
    for (c, size) in [(64, 80), (128, 40)] {
        benches.push(transposed(isa, n_threads, c, size));
    }
    benches.push(others(isa, n_threads, "pool", 128, 20));
    benches.push(others(isa, n_threads, "upsample", 128, 20));
    benches.push(others(isa, n_threads, "upsample", 128, 40));
    benches.push(others(isa, n_threads, "bilinear", 256, 40));
    benches.push(others(isa, n_threads, "average", 128, 80));
    benches.push(others(isa, n_threads, "average of all", 1280, 7));
    benches.push(others(isa, n_threads, "add", 64, 40));
    benches.push(others(isa, n_threads, "silu", 64, 40));
    benches.push(others(isa, n_threads, "planar", 80, 80));
    benches.push(others(isa, n_threads, "max", 80, 80));
    benches.push(others(isa, n_threads, "dfl", 64, 80));
    benches.push(attend(isa, n_threads));
    benches
}

/// Two buffers of the same number of channels, the second `factor` times as wide and high, in an arena of noise.
fn buffers(c: usize, size: usize, factor: usize, scratch_len: usize) -> (Arena, View, View, Scratch) {
    let input = View::buffer(0, 1, size, size, c, 3);
    let output_at = View::buffer_len(1, size, size, c, 3).next_multiple_of(16);
    let output = View::buffer(output_at, 1, size * factor, size * factor, c, 1);
    let end = output_at + View::buffer_len(1, size * factor, size * factor, c, 1);
    let scratch = Scratch { offset: end.next_multiple_of(16), len: scratch_len };
    let mut arena = Arena::new(scratch.offset + scratch_len).expect("enough memory");
    for (i, x) in arena.as_mut_slice()[..output_at].iter_mut().enumerate() {
        *x = (i % 7) as f32 * 0.1 - 0.3;
    }
    (arena, input, output, scratch)
}

fn transposed(isa: Isa, n_threads: usize, c: usize, size: usize) -> Bench {
    let weight: Vec<f32> = (0..c * c * 4).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
    let weights = PackedConvTranspose::new([c; 2], [2; 2], &weight, None);
    let (mut arena, input, output, _) = buffers(c, size, 2, 0);
    let threads = Threads::new(n_threads).expect("threads");
    Bench {
        name: format!("transposed/{c}->{c} k2 s2 @{}/{}", 2 * size, isa.name()),
        work: 2.0 * (4 * size * size * c * c) as f64,
        unit: "F",
        run: Box::new(move || {
            let op = ConvTranspose2d { weights: &weights, activation: Activation::None, input, output };
            conv_transpose2d(Context { isa, threads: &threads }, &mut arena, &op);
        }),
    }
}

fn depthwise(isa: Isa, n_threads: usize, c: usize, k: usize, size: usize) -> Bench {
    let spec = DepthwiseSpec { c, kernel: [k; 2], stride: [1; 2], padding: [k / 2; 2] };
    let weight: Vec<f32> = (0..c * k * k).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
    let weights = PackedDepthwise::new(spec, &weight, None, None);
    let (mut arena, input, output, _) = buffers(c, size, 1, 0);
    let threads = Threads::new(n_threads).expect("threads");
    Bench {
        name: format!("depthwise/{c} k{k} s1 @{size}/{}", isa.name()),
        work: 2.0 * (size * size * c * 4) as f64,
        unit: "B",
        run: Box::new(move || {
            let op = Depthwise2d {
                weights: &weights,
                activation: Activation::Silu,
                input,
                output,
                residual: None,
            };
            depthwise2d(Context { isa, threads: &threads }, &mut arena, &op);
        }),
    }
}

/// Kernels that move data; their rate is in bytes read and written.
fn others(isa: Isa, n_threads: usize, what: &'static str, c: usize, size: usize) -> Bench {
    let factor = if matches!(what, "upsample" | "bilinear") { 2 } else { 1 };
    let (mut arena, input, output, _) = buffers(c, size, factor, 0);
    let threads = Threads::new(n_threads).expect("threads");
    let mut planes = vec![0.0; c * size * size];
    Bench {
        name: format!("{what}/{c} @{size}/{}", isa.name()),
        work: ((1 + factor * factor) * size * size * c * 4) as f64,
        unit: "B",
        run: Box::new(move || {
            let ctx = Context { isa, threads: &threads };
            let pixels = size * size;
            match what {
                "pool" => {
                    let (kernel, stride, padding) = ([5; 2], [1; 2], [2; 2]);
                    max_pool2d(ctx, &mut arena, &MaxPool2d { kernel, stride, padding, input, output });
                }
                "average" => {
                    let output = View { h: size - 1, w: size - 1, ..output };
                    avg_pool2d(ctx, &mut arena, [[2; 2], [1; 2]], input, output);
                }
                "average of all" => {
                    global_avg_pool(ctx, &mut arena, input, View { h: 1, w: 1, ..output });
                }
                "bilinear" => resize_bilinear(ctx, &mut arena, true, input, output),
                "upsample" => upsample_nearest(ctx, &mut arena, 2, input, output),
                "add" => add(ctx, &mut arena, input, output, output),
                "silu" => activate(ctx, &mut arena, Activation::Silu, input, output),
                "max" => max_over_channels(ctx, &arena, input, 0, &mut planes[..pixels]),
                "dfl" => dfl_planar(ctx, &arena, input, 0, c / 4, &mut planes, pixels, 0),
                _ => store_planar(ctx, &arena, input, 0, &mut planes, pixels, 0, Activation::Sigmoid),
            }
        }),
    }
}

fn attend(isa: Isa, n_threads: usize) -> Bench {
    let (heads, key_dim, head_dim, size) = (2, 32, 64, 20);
    let scratch_len = attention_scratch_len(heads, key_dim, head_dim, size * size, n_threads);
    let (mut arena, qkv, output, scratch) = buffers(256, size, 1, scratch_len);
    let threads = Threads::new(n_threads).expect("threads");
    let output = output.channels(0, 128);
    Bench {
        name: format!("attention/400 tokens, 2 heads of 32 and 64/{}", isa.name()),
        work: 2.0 * (heads * 400 * 400 * (key_dim + head_dim)) as f64,
        unit: "F",
        run: Box::new(move || {
            let op = Attention { heads, key_dim, head_dim, areas: 1, scale: 0.2, qkv, output, scratch };
            attention(Context { isa, threads: &threads }, &mut arena, &op);
        }),
    }
}

fn conv(isa: Isa, n_threads: usize, ic: usize, oc: usize, k: usize, stride: usize, size: usize) -> Bench {
    let spec = ConvSpec { oc, ic, kernel: [k; 2], stride: [stride; 2], padding: [k / 2; 2] };
    let weight: Vec<f32> = (0..oc * ic * k * k).map(|i| (i % 13) as f32 * 0.01 - 0.06).collect();
    let weights = PackedConv::new(spec, &weight, None, None);
    let in_size = size * stride;
    let halo = k / 2;
    let input = View::buffer(0, 1, in_size, in_size, ic, halo);
    let output_at = View::buffer_len(1, in_size, in_size, ic, halo).next_multiple_of(16);
    let output = View::buffer(output_at, 1, size, size, oc, 1);
    let scratch_at = (output_at + View::buffer_len(1, size, size, oc, 1)).next_multiple_of(16);
    let scratch = Scratch { offset: scratch_at, len: weights.scratch_len(size, size, n_threads) };
    let mut arena = Arena::new(scratch_at + scratch.len).expect("enough memory");
    for (i, x) in arena.as_mut_slice()[..output_at].iter_mut().enumerate() {
        *x = (i % 7) as f32 * 0.1 - 0.3;
    }
    let threads = Threads::new(n_threads).expect("threads");
    Bench {
        name: format!("conv/{ic}->{oc} k{k} s{stride} @{size}/{}", isa.name()),
        work: 2.0 * (size * size * oc * ic * k * k) as f64,
        unit: "F",
        run: Box::new(move || {
            let op = Conv2d {
                weights: &weights,
                activation: Activation::Silu,
                input,
                output,
                residual: None,
                scratch,
            };
            conv2d(Context { isa, threads: &threads }, &mut arena, &op);
        }),
    }
}
