//! Matrix units: which ones are used, and how convolutions are cut for them.

use ferroyolo_shaders::{CONV2D_MATRIX_8, CONV2D_MATRIX_16, Element, Matrix, Shader};
use wgpu::{CooperativeMatrixProperties, CooperativeScalarType as Scalar};

use super::job::word;
use super::variant::Variant;

/// What a device has to be opened with.
pub(super) const FEATURES: wgpu::Features =
    wgpu::Features::SUBGROUP.union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// Matrix units of a device, as shaders use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatrixUnits {
    /// For matrices of a size that the device has.
    pub shader: Shader,
    /// Fewest and most invocations of a subgroup.
    pub subgroup: [usize; 2],
}

/// The matrix units of an adapter that multiply such elements, or why there are none.
pub(super) fn find(handle: &wgpu::Adapter, element: Element) -> Result<MatrixUnits, String> {
    let features = handle.features();
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Err("it has no cooperative matrices".to_owned());
    }
    if !features.contains(wgpu::Features::SUBGROUP) {
        return Err("its shaders do not know subgroups".to_owned());
    }
    let shader = choose(&handle.cooperative_matrix_properties(), element)?;
    let info = handle.get_info();
    let subgroup = [info.subgroup_min_size as usize, info.subgroup_max_size as usize];
    if !subgroup.iter().all(|size| size.is_power_of_two()) || subgroup[0] > subgroup[1] {
        return Err(format!("its subgroups have {} to {} invocations", subgroup[0], subgroup[1]));
    }
    Ok(MatrixUnits { shader, subgroup })
}

/// The shader for the largest of the listed matrices that multiply such elements and sum 32-bit floats.
fn choose(listed: &[CooperativeMatrixProperties], element: Element) -> Result<Shader, String> {
    let (scalar, bits) = match element {
        Element::F32 => (Scalar::F32, 32),
        Element::F16 => (Scalar::F16, 16),
    };
    let has = |side: u32| {
        let is_it = |shape: &CooperativeMatrixProperties| {
            [shape.m_size, shape.n_size, shape.k_size] == [side; 3]
                && (shape.ab_type, shape.cr_type) == (scalar, Scalar::F32)
        };
        listed.iter().any(is_it)
    };
    match () {
        () if has(16) => Ok(CONV2D_MATRIX_16),
        () if has(8) => Ok(CONV2D_MATRIX_8),
        () => Err(format!("none of its matrices is 16 or 8 wide, of {bits}-bit floats with 32-bit sums")),
    }
}

/// How tiles are cut: blocks of matrices, one for each subgroup or for several.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Blocks along the pixels and along the channels.
    blocks: [usize; 2],
    /// Matrices of a block along the pixels (two or four) and along the channels (one or two).
    matrices: [usize; 2],
    /// Subgroups that share a block, where they are as large as they can be.
    sharing: usize,
}

/// Small maps want small tiles, so that there are enough of them; then several subgroups share a block.
const CUTS: [Cut; 6] = [
    Cut { blocks: [2, 2], matrices: [2, 2], sharing: 1 },
    Cut { blocks: [1, 1], matrices: [2, 2], sharing: 4 },
    Cut { blocks: [1, 2], matrices: [2, 2], sharing: 2 },
    Cut { blocks: [4, 1], matrices: [2, 1], sharing: 1 },
    Cut { blocks: [4, 1], matrices: [2, 2], sharing: 1 },
    Cut { blocks: [2, 2], matrices: [4, 2], sharing: 1 },
];

/// Ways to convolve on matrix units, whatever room they take.
///
/// The first ones, which stand for all when a device is opened, differ in whether blocks are shared and in whether
/// vectors are asked for ahead.
pub(super) fn variants(units: MatrixUnits, element_bytes: u64) -> Vec<Variant> {
    let turn = |first: usize| {
        CUTS.iter().enumerate().filter_map(move |(idx, &cut)| {
            let waiting = variant(units, element_bytes as usize, cut)?;
            if (first + idx).is_multiple_of(2) { Some(waiting) } else { ahead(waiting) }
        })
    };
    turn(0).chain(turn(1)).collect()
}

/// Vectors of each side that `conv2d_matrix.wgsl` lets an invocation hold from a round to the next.
const MOST_HELD: usize = 8;

/// The same with a round's vectors on their way while the one before is computed, if invocations can hold them.
fn ahead(waiting: Variant) -> Option<Variant> {
    let vectors = waiting.tile.map(|side| side * waiting.depth / 4);
    let most = MOST_HELD * waiting.invocations as usize;
    vectors.iter().all(|&n| n <= most).then(|| waiting.ahead())
}

fn variant(units: MatrixUnits, element_bytes: usize, cut: Cut) -> Option<Variant> {
    let MatrixUnits { shader, subgroup: [smallest, largest] } = units;
    let side = shader.matrix.map_or(0, Matrix::side);
    let tile @ [pixels, channels] = [0, 1].map(|axis| cut.blocks[axis] * cut.matrices[axis] * side);
    // One matrix of inputs for each of those that share a block, and no fewer than 32 channels.
    let depth = (cut.sharing * side).max(32);
    let threads = cut.blocks[0] * cut.blocks[1] * cut.sharing * largest;
    // No more subgroups than planned for, or twice as many if they may be smaller: some drivers name a smallest size that
    // they never use, and sums take memory for each. Further ones would only repeat what is done.
    let subgroups = threads / largest * (largest / smallest).min(2);
    // Where a pixel's window begins; rows of operands, which have eight elements to spare; and rows of sums of each of
    // the subgroups, which have four.
    let origins = pixels * size_of::<[i32; 4]>();
    let operands = (pixels * (depth + 8) + depth * (channels + 8)) * element_bytes;
    let sums = subgroups * side * (cut.matrices[1] * side + 4) * size_of::<f32>();
    let overrides = vec![
        ("THREADS", word(threads)),
        ("SUBGROUPS", word(subgroups)),
        ("BLOCKS_DOWN", word(cut.blocks[0])),
        ("BLOCKS_ACROSS", word(cut.blocks[1])),
        ("MATRICES_DOWN", word(cut.matrices[0])),
        ("MATRICES_ACROSS", word(cut.matrices[1])),
        ("DEPTH", word(depth)),
    ];
    let variant = Variant {
        shader,
        overrides,
        tile,
        invocations: word(threads),
        bytes: origins + operands + sums,
        suits: |_| true,
        depth,
        is_ahead: false,
        // Those of 8 x 8 are Apple's, which save reads rather than sums.
        rate: if side == 16 { 8.0 } else { 2.0 },
    };
    // Each invocation reads the same four input channels of some pixels.
    threads.is_multiple_of(depth / 4).then_some(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape([m, n, k]: [u32; 3], ab_type: Scalar, cr_type: Scalar) -> CooperativeMatrixProperties {
        CooperativeMatrixProperties {
            m_size: m,
            n_size: n,
            k_size: k,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        }
    }

    #[test]
    fn the_largest_matrices_with_exact_sums_are_chosen() {
        let listed = [
            shape([16; 3], Scalar::F16, Scalar::F16),
            shape([16, 8, 16], Scalar::F16, Scalar::F32),
            shape([8; 3], Scalar::F16, Scalar::F32),
        ];
        assert_eq!(choose(&listed, Element::F16), Ok(CONV2D_MATRIX_8));
        choose(&listed, Element::F32).expect_err("no 32-bit floats are multiplied");
        choose(&listed[..2], Element::F16).expect_err("sums have 16 bits, or sides differ");
        let both = [listed[2], shape([16; 3], Scalar::F16, Scalar::F32)];
        assert_eq!(choose(&both, Element::F16), Ok(CONV2D_MATRIX_16));
        assert_eq!(choose(&[shape([8; 3], Scalar::F32, Scalar::F32)], Element::F32), Ok(CONV2D_MATRIX_8));
    }

    #[test]
    fn tiles_have_the_room_that_the_shader_takes() {
        let units = MatrixUnits { shader: CONV2D_MATRIX_16, subgroup: [32, 32] };
        let first = &variants(units, 2)[0];
        assert_eq!((first.tile, first.invocations), ([64, 64], 128));
        // 64 origins, 64 rows of 40 and 32 of 72 halves, and 16 rows of 36 sums for each of four subgroups.
        assert_eq!(first.bytes, 1024 + 5120 + 4608 + 9216);
        // Subgroups that may be half as large are as many again, each with its sums.
        let first = &variants(MatrixUnits { subgroup: [32, 64], ..units }, 2)[0];
        assert_eq!((first.invocations, first.bytes), (256, 1024 + 5120 + 4608 + 2 * 9216));
    }

    /// Metal names a smallest size of 4, whatever there is, and 32 KiB of workgroup memory.
    #[test]
    fn sizes_that_are_never_used_leave_room() {
        let all = variants(MatrixUnits { shader: CONV2D_MATRIX_8, subgroup: [4, 64] }, 2);
        assert_eq!(all.len(), 2 * CUTS.len());
        assert!(all.iter().all(|way| way.bytes <= 32 << 10), "{all:?}");
    }

    /// Graphics processors with matrices have subgroups of 32 or 64, whose invocations hold all there is.
    #[test]
    fn all_ways_are_there_with_vectors_ahead_and_without() {
        for (shader, subgroup) in
            [CONV2D_MATRIX_8, CONV2D_MATRIX_16].into_iter().flat_map(|shader| [32, 64].map(|n| (shader, n)))
        {
            let all = variants(MatrixUnits { shader, subgroup: [subgroup; 2] }, 2);
            assert_eq!(all.len(), 2 * CUTS.len());
            assert_eq!(all.iter().filter(|way| way.is_ahead).count(), CUTS.len());
            assert_eq!([all[0].is_ahead, all[1].is_ahead], [false, true]);
        }
        // Invocations of small subgroups would have to hold too much of some.
        let few = variants(MatrixUnits { shader: CONV2D_MATRIX_8, subgroup: [8; 2] }, 2);
        let n_ahead = few.iter().filter(|way| way.is_ahead).count();
        assert!(0 < n_ahead && n_ahead < CUTS.len(), "{n_ahead}");
    }

    #[test]
    fn invocations_share_rows_evenly() {
        for (shader, subgroup) in [CONV2D_MATRIX_8, CONV2D_MATRIX_16]
            .into_iter()
            .flat_map(|shader| [4, 8, 16, 32, 64].map(|n| (shader, n)))
        {
            for variant in variants(MatrixUnits { shader, subgroup: [subgroup; 2] }, 2) {
                let is_even = (variant.invocations as usize).is_multiple_of(variant.depth / 4);
                let side = shader.matrix.map_or(0, Matrix::side);
                assert!(is_even && variant.depth.is_multiple_of(side), "{variant:?}");
            }
        }
    }
}
