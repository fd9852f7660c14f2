//! Ways to carry out convolutions: shaders, and the tiles that their workgroups compute.

use ferroyolo_shaders::{CONV2D, Shader};

use super::device::Gpu;
use super::job::{Job, word};
use super::matrix;
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
    /// Whether it can do a job.
    pub suits: fn(&Job) -> bool,
    /// Input channels, over all cells of the kernel, of a round. The last round of a sum is as long as the others.
    pub depth: usize,
    /// About how many sums it computes while the plain shader computes one.
    pub rate: f64,
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

/// The ways that ask for nothing but room, by falling size of tiles.
fn plain() -> Vec<Variant> {
    [[64, 64], [64, 32], [32, 32], [64, 16]].map(tiles).to_vec()
}

/// `conv2d.wgsl` with tiles of this size.
fn tiles(tile: [usize; 2]) -> Variant {
    let [pixels, channels] = tile;
    Variant {
        shader: CONV2D,
        overrides: vec![("TILE_PIXELS", word(pixels)), ("TILE_CHANNELS", word(channels))],
        tile,
        invocations: word(pixels * channels / 16),
        // Vectors of four rounds of input channels, and where each pixel's window begins.
        bytes: 16 * (4 * (pixels + channels) + pixels),
        suits: |_| true,
        depth: 16,
        rate: 1.0,
    }
}

/// Workgroups that keep a device busy. Of fewer, each one more makes the dispatch shorter.
const BUSY: f64 = 128.0;

impl Variant {
    /// What it is called where choices are kept.
    pub(super) fn name(&self) -> String {
        let overrides = self.overrides.iter().map(|(name, value)| format!(" {name}={value}"));
        self.shader.name.to_owned() + &overrides.collect::<String>()
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

    /// About how long `products` take in one dispatch; only the order of these numbers means something.
    fn cost(&self, products: &[Product]) -> f64 {
        let [rows, columns] = self.tile.map(|side| side as f64);
        // A tile is read once along each side while all of it is computed, and a read costs as much as some sums.
        let of_a_tile = rows * columns / self.rate + 4.0 * (rows + columns);
        let inner = |product: &Product| {
            (product.cells * product.channels.next_multiple_of(4)).next_multiple_of(self.depth) as f64
        };
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

/// Chooses how dispatches are carried out.
pub(crate) trait Choose: std::fmt::Debug {
    /// The index of one of `variants`, of which there is at least one, for all of `jobs` together.
    fn choose(&mut self, gpu: &Gpu, variants: &[&Variant], jobs: &[Job]) -> Result<usize>;
}

/// Takes what is likely the fastest.
#[derive(Debug)]
pub(crate) struct Guess;

impl Choose for Guess {
    fn choose(&mut self, _: &Gpu, variants: &[&Variant], jobs: &[Job]) -> Result<usize> {
        let products: Vec<Product> = jobs.iter().filter_map(|job| job.product).collect();
        Ok(by_cost(variants, &products)[0])
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

/// The indices of `variants`, what is likely the fastest first.
pub(super) fn by_cost(variants: &[&Variant], products: &[Product]) -> Vec<usize> {
    let costs: Vec<f64> = variants.iter().map(|variant| variant.cost(products)).collect();
    let mut order: Vec<usize> = (0..variants.len()).collect();
    order.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(rows: usize, columns: usize) -> [usize; 2] {
        let product = Product { rows, columns, cells: 9, channels: 64, across: 1 };
        let all = plain();
        all[by_cost(&all.iter().collect::<Vec<_>>(), &[product])[0]].tile
    }

    #[test]
    fn names_tell_ways_apart() {
        let mut names: Vec<String> = plain().iter().map(Variant::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), plain().len());
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
