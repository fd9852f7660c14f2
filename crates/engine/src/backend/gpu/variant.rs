//! Ways to carry out convolutions: shaders, and the tiles that their workgroups compute.

use ferroyolo_shaders::{CONV2D, Shader};

use super::device::Gpu;
use super::job::{Job, word};
use crate::error::Result;

/// A matrix product: a convolution whose output is cut into tiles by the dispatch that it gets into.
///
/// Rows are output pixels, columns output channels; the sums run over the cells of the kernel and input channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub cells: usize,
    pub channels: usize,
    /// The word that takes the number of tiles along the columns.
    pub across: usize,
}

/// One way to carry out products. All of them read the same words and weights and give the same values, but for the
/// order of sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub shader: Shader,
    pub overrides: &'static [(&'static str, u32)],
    /// Rows and columns of a workgroup's tile.
    pub tile: [usize; 2],
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Workgroup memory.
    pub bytes: usize,
    /// What it asks for beyond the limits of the device.
    pub suits: fn(&Gpu, &Job) -> bool,
}

/// All ways, by falling size of tiles.
pub(crate) const VARIANTS: &[Variant] = &[
    tiles([64, 64], &[("TILE_PIXELS", 64), ("TILE_CHANNELS", 64)]),
    tiles([64, 32], &[("TILE_PIXELS", 64), ("TILE_CHANNELS", 32)]),
    tiles([32, 32], &[("TILE_PIXELS", 32), ("TILE_CHANNELS", 32)]),
    tiles([64, 16], &[("TILE_PIXELS", 64), ("TILE_CHANNELS", 16)]),
];

/// `conv2d.wgsl` with tiles of this size.
const fn tiles(tile: [usize; 2], overrides: &'static [(&'static str, u32)]) -> Variant {
    let [pixels, channels] = tile;
    // Vectors of four rounds of input channels, and where each pixel's window begins.
    let bytes = 16 * (4 * (pixels + channels) + pixels);
    let invocations = (pixels * channels / 16) as u32;
    Variant { shader: CONV2D, overrides, tile, invocations, bytes, suits: |_, _| true }
}

/// Workgroups that keep a device busy. Of fewer, each one more makes the dispatch shorter.
const BUSY: f64 = 128.0;

impl Variant {
    /// Tiles of a product, and how many of them lie beside each other.
    pub(crate) fn tiles(&self, product: &Product) -> (usize, usize) {
        let across = product.columns.div_ceil(self.tile[1]);
        (product.rows.div_ceil(self.tile[0]) * across, across)
    }

    /// Whether `gpu` can do these jobs so.
    fn fits(&self, gpu: &Gpu, jobs: &[Job]) -> bool {
        let limits = gpu.device.limits();
        let longest = limits.max_compute_workgroup_size_x.min(limits.max_compute_workgroup_size_y);
        self.invocations <= limits.max_compute_invocations_per_workgroup.min(longest)
            && self.bytes <= limits.max_compute_workgroup_storage_size as usize
            && jobs.iter().all(|job| (self.suits)(gpu, job))
    }

    /// About how long `products` take in one dispatch; only the order of these numbers means something.
    fn cost(&self, products: &[Product]) -> f64 {
        let [rows, columns] = self.tile.map(|side| side as f64);
        // A tile is read once along each side while all of it is computed, and a read costs as much as some sums.
        let of_a_tile = rows * columns + 4.0 * (rows + columns);
        let inner = |product: &Product| (product.cells * product.channels.next_multiple_of(4)) as f64;
        let work: f64 =
            products.iter().map(|product| self.tiles(product).0 as f64 * inner(product) * of_a_tile).sum();
        let n_tiles: usize = products.iter().map(|product| self.tiles(product).0).sum();
        work / BUSY.min(n_tiles as f64)
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

/// The ways in which `gpu` can do these jobs.
pub(super) fn fitting(gpu: &Gpu, jobs: &[Job]) -> Vec<&'static Variant> {
    VARIANTS.iter().filter(|variant| variant.fits(gpu, jobs)).collect()
}

/// Chooses how dispatches are carried out.
pub(crate) trait Choose: std::fmt::Debug {
    /// One of `variants`, of which there is at least one, for all of `jobs` together.
    fn choose(&mut self, gpu: &Gpu, variants: &[&'static Variant], jobs: &[Job]) -> Result<&'static Variant>;
}

/// Takes what is likely the fastest.
#[derive(Debug)]
pub(crate) struct Guess;

impl Choose for Guess {
    fn choose(&mut self, _: &Gpu, variants: &[&'static Variant], jobs: &[Job]) -> Result<&'static Variant> {
        let products: Vec<Product> = jobs.iter().filter_map(|job| job.product).collect();
        Ok(guess(variants, &products))
    }
}

/// Takes each variant in turn, for tests: the one of this index, counted around.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Nth(pub usize);

#[cfg(test)]
impl Choose for Nth {
    fn choose(&mut self, _: &Gpu, variants: &[&'static Variant], _: &[Job]) -> Result<&'static Variant> {
        Ok(variants[self.0 % variants.len()])
    }
}

fn guess(variants: &[&'static Variant], products: &[Product]) -> &'static Variant {
    let cost = |variant: &Variant| variant.cost(products);
    variants.iter().copied().min_by(|a, b| cost(a).total_cmp(&cost(b))).expect("at least one variant")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(rows: usize, columns: usize) -> [usize; 2] {
        let product = Product { rows, columns, cells: 9, channels: 64, across: 1 };
        let all: Vec<_> = VARIANTS.iter().filter(|variant| variant.shader == CONV2D).collect();
        guess(&all, &[product]).tile
    }

    #[test]
    fn tiles_follow_the_map() {
        assert_eq!(guessed(320 * 320, 16), [64, 16]);
        assert_eq!(guessed(160 * 160, 32), [64, 32]);
        assert_eq!(guessed(160 * 160, 128), [64, 64]);
        // Few cells: smaller tiles keep more of a device busy.
        assert_eq!(guessed(20 * 20, 256), [32, 32]);
    }
}
