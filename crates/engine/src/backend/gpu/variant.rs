//! Ways to carry out convolutions: shaders, and the tiles that their workgroups compute.

use ferroyolo_shaders::{CONV2D, CONV2D_MATRIX_8, CONV2D_MATRIX_16, CONV2D_WIDE, Shader};

use super::device::Gpu;
use super::job::{Job, word};
use super::matrix;
use crate::error::Result;

/// A matrix product: a convolution whose output is cut into tiles by the dispatch that it gets into.
///
/// Rows are output pixels, columns output channels; the sums run over the cells of the kernel and input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    pub images: usize,
    /// Of all images.
    pub rows: usize,
    pub columns: usize,
    pub cells: usize,
    pub channels: usize,
    /// Whether each pixel is taken once, by a kernel of one cell.
    pub is_pointwise: bool,
    /// The word that takes the number of tiles along the columns.
    pub across: usize,
    /// One past the last element of the arena that shaders reach by the words of the job.
    pub arena_end: usize,
}

/// The shaders that compute products. They read and write where the words of a job say, and nowhere else; so a dispatch
/// is made of them only if that is within the arena ([`Product::arena_end`]).
pub(super) const PRODUCT_SHADERS: [Shader; 4] = [CONV2D, CONV2D_WIDE, CONV2D_MATRIX_8, CONV2D_MATRIX_16];

/// One way to carry out products. All of them read the same words and weights and give the same values, but for the
/// order of sums.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub shader: Shader,
    pub overrides: Vec<(&'static str, u32)>,
    /// Rows and columns of a workgroup's tile.
    pub tile: [usize; 2],
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Workgroup memory.
    pub bytes: usize,
    /// Input channels, over all cells of the kernel, of a round. The last round of a sum is as long as the others.
    pub depth: usize,
    /// Whether it asks for the vectors of a round before it computes the sums of the one before it.
    pub is_ahead: bool,
    /// About how many sums it computes while the plain shader, which waits for workgroup memory, computes one.
    pub rate: f64,
    /// Whether it can do a job.
    pub suits: fn(&Job) -> bool,
}

/// All ways that `gpu` has.
pub(crate) fn variants(gpu: &Gpu) -> Vec<Variant> {
    let mut all = plain();
    all.extend(
        gpu.matrix_units().map(|units| matrix::variants(units, gpu.element_bytes())).unwrap_or_default(),
    );
    all.retain(|variant| variant.is_within(&gpu.device.limits()));
    all
}

/// The ways that ask for nothing but room.
fn plain() -> Vec<Variant> {
    let wide = [[128, 128], [128, 64], [64, 64], [128, 32]].map(|tile| Tiles {
        shader: CONV2D_WIDE,
        tile,
        depth: 4,
        block: [8, 8],
        split: 1,
    });
    // Tile, depth and split.
    let small = [
        ([64, 32], 4, 1),
        ([64, 16], 4, 1),
        ([32, 32], 8, 1),
        ([32, 32], 8, 2),
        ([32, 32], 16, 4),
        ([16, 32], 8, 2),
    ]
    .map(|(tile, depth, split)| Tiles { shader: CONV2D, tile, depth, block: [4, 4], split });
    let tiles: Vec<Tiles> = wide.into_iter().chain(small).collect();
    let ahead = tiles.iter().filter_map(Tiles::ahead);
    tiles.iter().map(Tiles::variant).chain(ahead).collect()
}

/// Vectors of each side that `tiles.wgsl` lets an invocation hold from a round to the next.
const MOST_HELD: usize = 4;

/// A way of `tiles.wgsl`.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    shader: Shader,
    tile: [usize; 2],
    depth: usize,
    /// Rows and columns of an invocation's results.
    block: [usize; 2],
    /// Invocations for the same results.
    split: usize,
}

impl Tiles {
    fn invocations(&self) -> usize {
        self.tile[0] * self.tile[1] / (self.block[0] * self.block[1]) * self.split
    }

    /// The same with a round's vectors on their way while the one before is computed, if invocations can hold them.
    fn ahead(&self) -> Option<Variant> {
        let can_hold = self.tile.iter().all(|side| {
            let vectors = side * self.depth;
            vectors.is_multiple_of(self.invocations()) && vectors / self.invocations() <= MOST_HELD
        });
        can_hold.then(|| self.variant().ahead())
    }

    fn variant(&self) -> Variant {
        let &Self { shader, tile, depth, block, split } = self;
        let [pixels, channels] = tile;
        let window_stride = pixels + (8 / depth).max(1);
        let mut overrides = vec![
            ("TILE_PIXELS", word(pixels)),
            ("TILE_CHANNELS", word(channels)),
            ("DEPTH", word(depth)),
            ("WINDOW_STRIDE", word(window_stride)),
        ];
        if split > 1 {
            overrides.push(("SPLIT", word(split)));
        }
        let [rows, columns] = block.map(|side| side as f64);
        Variant {
            shader,
            overrides,
            tile,
            invocations: word(self.invocations()),
            // Vectors of both sides, and where each pixel's window begins.
            bytes: 16 * (depth * (window_stride + channels) + pixels),
            depth: 4 * depth,
            is_ahead: false,
            // Each row and each column of the block is read once for all of its sums.
            rate: (rows * columns / (rows + columns)) / 2.0,
            suits: |_| true,
        }
    }
}

/// A device as estimates imagine it: processors, invocations and bytes of workgroup memory that each of them holds at
/// once, sums that the plain shader does there in a cycle, and cycles until memory answers. Only the order of estimates
/// means something.
const PROCESSORS: f64 = 32.0;
const INVOCATIONS: f64 = 1024.0;
const BYTES: f64 = 49152.0;
const SUMS: f64 = 64.0;
const LATENCY: f64 = 700.0;

/// Cycles in which a processor brings a vector from the arena to workgroup memory.
const FETCH: f64 = 0.25;

impl Variant {
    /// What it is called where choices are kept.
    pub(crate) fn name(&self) -> String {
        let overrides = self.overrides.iter().map(|(name, value)| format!(" {name}={value}"));
        self.shader.name.to_owned() + &overrides.collect::<String>()
    }

    /// The same with the vectors of a round on their way while the one before is computed.
    pub(crate) fn ahead(mut self) -> Self {
        self.overrides.push(("AHEAD", 1));
        Self { is_ahead: true, ..self }
    }

    /// Tiles of a product, and how many of them lie beside each other.
    pub(crate) fn tiles(&self, product: &Product) -> (usize, usize) {
        let across = product.columns.div_ceil(self.tile[1]);
        (product.rows.div_ceil(self.tile[0]) * across, across)
    }

    /// Whether a device with these limits has room for its workgroups.
    fn is_within(&self, limits: &wgpu::Limits) -> bool {
        let longest = limits.max_compute_workgroup_size_x.min(limits.max_compute_workgroup_size_y);
        self.invocations <= limits.max_compute_invocations_per_workgroup.min(longest)
            && self.bytes <= limits.max_compute_workgroup_storage_size as usize
    }

    /// Whether it can do all of these.
    pub(super) fn fits(&self, jobs: &[Job]) -> bool {
        jobs.iter().all(self.suits)
    }

    /// About how long `products` take in one dispatch, on a device or on a program that stands in for one. The latter
    /// computes nothing while it waits.
    fn cost(&self, products: &[Product], is_software: bool) -> f64 {
        let [rows, columns] = self.tile.map(|side| side as f64);
        // For each input channel; reads are of four.
        let of_a_channel = rows * columns / (SUMS * self.rate) + (rows + columns) / 4.0 * FETCH;
        let at_once = (INVOCATIONS / f64::from(self.invocations)).min(BYTES / self.bytes as f64).floor();
        let (mut n_tiles, mut busy, mut longest) = (0.0, 0.0, 0.0f64);
        for product in products {
            let tiles = self.tiles(product).0 as f64;
            let inner = product.cells * product.channels.next_multiple_of(4);
            let rounds = inner.div_ceil(self.depth) as f64;
            let of_a_round = self.depth as f64 * of_a_channel;
            n_tiles += tiles;
            busy += tiles * rounds * of_a_round;
            longest = longest.max(if self.is_ahead && !is_software {
                LATENCY + rounds * of_a_round.max(LATENCY)
            } else {
                rounds * (LATENCY + of_a_round)
            });
        }
        // A processor either computes all the time, or waits for memory in each round of its tiles.
        let waves = (n_tiles / (PROCESSORS * at_once.clamp(1.0, 16.0))).ceil();
        let share = busy * (n_tiles / PROCESSORS).ceil() / n_tiles.max(1.0);
        share.max(waves * longest)
    }

    /// The values of override constants for `jobs`.
    pub(super) fn overrides(&self, jobs: &[Job]) -> Vec<(&'static str, u32)> {
        let is_pointwise = |job: &Job| job.product.is_some_and(|product| product.is_pointwise);
        let mut overrides = self.overrides.clone();
        if jobs.iter().all(is_pointwise) {
            overrides.push(("POINTWISE", 1));
        }
        overrides
    }

    /// Writes what it makes of a job.
    pub(super) fn cut(&self, job: &mut Job) {
        let Some(product) = job.product else { return };
        let (n_tiles, across) = self.tiles(&product);
        job.workgroups = n_tiles;
        job.workgroup_bytes = self.bytes;
        job.words[product.across] = word(across);
    }
}

/// Chooses how dispatches are carried out.
pub(crate) trait Choose: std::fmt::Debug {
    /// The index of one of `variants`, of which there is at least one, for all of `jobs` together.
    fn choose(&mut self, gpu: &Gpu, variants: &[&Variant], jobs: &[Job]) -> Result<usize>;
}

/// Takes what is likely the fastest for one image, so that results do not depend on how many there are in a batch.
#[derive(Debug)]
pub(crate) struct Guess;

impl Choose for Guess {
    fn choose(&mut self, gpu: &Gpu, variants: &[&Variant], jobs: &[Job]) -> Result<usize> {
        let of_one_image = |product: Product| Product { rows: product.rows / product.images, ..product };
        let products: Vec<Product> = jobs.iter().filter_map(|job| job.product).map(of_one_image).collect();
        Ok(by_cost(variants, &products, gpu.adapter().is_software)[0])
    }
}

/// Takes the one of this index, counted around.
#[derive(Debug)]
pub(crate) struct Nth(pub usize);

impl Choose for Nth {
    fn choose(&mut self, _: &Gpu, variants: &[&Variant], _: &[Job]) -> Result<usize> {
        Ok(self.0 % variants.len())
    }
}

/// The indices of `variants`, what is likely the fastest first. Of equals, what needs fewer registers comes first.
pub(super) fn by_cost(variants: &[&Variant], products: &[Product], is_software: bool) -> Vec<usize> {
    let costs: Vec<f64> = variants.iter().map(|variant| variant.cost(products, is_software)).collect();
    let mut order: Vec<usize> = (0..variants.len()).collect();
    order.sort_by(|&a, &b| {
        costs[a].total_cmp(&costs[b]).then(variants[a].is_ahead.cmp(&variants[b].is_ahead))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is likely the fastest for a 3x3 convolution.
    fn best(rows: usize, [channels, columns]: [usize; 2], is_software: bool) -> Variant {
        let product = Product {
            images: 1,
            rows,
            columns,
            cells: 9,
            channels,
            is_pointwise: false,
            across: 1,
            arena_end: 0,
        };
        let all = plain();
        all[by_cost(&all.iter().collect::<Vec<_>>(), &[product], is_software)[0]].clone()
    }

    /// Its shader and tile.
    fn guessed(rows: usize, channels: [usize; 2]) -> (Shader, [usize; 2]) {
        let best = best(rows, channels, false);
        (best.shader, best.tile)
    }

    #[test]
    fn names_tell_ways_apart() {
        let mut names: Vec<String> = plain().iter().map(Variant::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), plain().len());
    }

    #[test]
    fn every_device_has_a_way() {
        let all = plain();
        let within = |limits: &wgpu::Limits| all.iter().filter(|way| way.is_within(limits)).count();
        assert!(within(&wgpu::Limits::default()) >= all.len() / 2);
        assert!(within(&wgpu::Limits::downlevel_defaults()) >= all.len() / 2);
    }

    #[test]
    fn tiles_follow_the_map() {
        // Many cells and channels: as many results for each vector that is read as there can be.
        let (shader, _) = guessed(160 * 160, [64, 128]);
        assert_eq!(shader, CONV2D_WIDE);
        // Few channels: no tile that is half empty.
        assert!(guessed(320 * 320, [3, 16]).1[1] <= 32);
        assert_eq!(guessed(160 * 160, [32, 32]).1[1], 32);
        // Few cells: small tiles keep more of a device busy.
        let (_, [pixels, channels]) = guessed(20 * 20, [256, 64]);
        assert!(pixels * channels <= 32 * 32);
    }

    #[test]
    fn vectors_are_asked_for_ahead_where_a_device_would_wait() {
        // Few tiles of many rounds.
        for side in [20, 40] {
            assert!(best(side * side, [256, 256], false).is_ahead);
        }
        // Many tiles: while one waits, another one computes.
        assert!(!best(320 * 320, [64, 128], false).is_ahead);
        // A program gains nothing.
        for side in [1, 20, 40, 80, 160, 320] {
            for channels in [[3, 16], [64, 64], [256, 256]] {
                assert!(!best(side * side, channels, true).is_ahead);
            }
        }
    }

    #[test]
    fn ways_that_ask_ahead_are_the_others_again() {
        let all = plain();
        let (ahead, waiting): (Vec<_>, Vec<_>) = all.iter().partition(|way| way.is_ahead);
        for way in &ahead {
            let is_twin = |other: &&&Variant| other.name() + " AHEAD=1" == way.name();
            let twin = waiting.iter().find(is_twin).unwrap_or_else(|| panic!("{}", way.name()));
            assert_eq!((way.tile, way.bytes, way.invocations), (twin.tile, twin.bytes, twin.invocations));
            // What the shader takes: one, two or four vectors of each side for every invocation.
            for side in way.tile {
                let held = (side * way.depth / 4) as f64 / f64::from(way.invocations);
                assert!([1.0, 2.0, 4.0].contains(&held), "{}: {held}", way.name());
            }
        }
        // All but one, which has twice as many pixels for each invocation.
        assert_eq!(ahead.len() + 1, waiting.len());
    }

    #[test]
    fn sums_of_several_invocations_have_room() {
        for way in plain().iter().filter(|way| way.overrides.iter().any(|(name, _)| *name == "SPLIT")) {
            assert!(way.depth >= way.tile[1], "{}", way.name());
        }
    }
}
