//! How shaders put together what the invocations of a workgroup have.

use ferroyolo_shaders::Reduce;

/// The way for an adapter whose subgroups have from `sizes[0]` to `sizes[1]` invocations, if shaders can use them.
///
/// The shaders ask at run time how many subgroups there are, so that any size will do but that of one invocation.
pub(super) fn choose(sizes: Option<[u32; 2]>) -> Reduce {
    match sizes {
        Some([least, most]) if 2 <= least && least <= most => Reduce::Subgroups,
        _ => Reduce::Barriers,
    }
}

#[cfg(test)]
mod tests {
    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::for_tests;

    #[test]
    fn subgroups_are_used_where_they_are_of_use() {
        for sizes in [[32, 32], [8, 32], [4, 128], [64, 64]] {
            assert_eq!(choose(Some(sizes)), Reduce::Subgroups, "{sizes:?}");
        }
        for sizes in [None, Some([0, 0]), Some([1, 1]), Some([64, 32])] {
            assert_eq!(choose(sizes), Reduce::Barriers, "{sizes:?}");
        }
    }

    /// A device that is opened without them could not compile what it would be given.
    #[test]
    fn devices_are_opened_with_the_subgroups_that_they_have() {
        for element in [Element::F32, Element::F16] {
            let Some(gpu) = for_tests(element) else { continue };
            let has_subgroups = gpu.adapter().subgroup_sizes.is_some();
            assert_eq!(gpu.device.features().contains(wgpu::Features::SUBGROUP), has_subgroups);
            assert_eq!(gpu.reduction(), choose(gpu.adapter().subgroup_sizes));
            assert_eq!(gpu.reducing(Reduce::Subgroups).is_some(), has_subgroups);
        }
    }
}
