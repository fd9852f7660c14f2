//! The block of memory that holds all activations of a network.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::View;

/// Alignment of an arena in bytes: a cache line, and one AVX-512 register.
const ALIGN: usize = 64;

/// Size of a huge page in bytes; blocks of at least two are aligned to it.
const HUGE_PAGE: usize = 2 << 20;

/// A 64-byte aligned block of `f32`, zero at first.
pub struct Arena {
    ptr: NonNull<f32>,
    len: usize,
}

/// An arena could not be allocated.
#[derive(Debug)]
pub struct ArenaError {
    len: usize,
}

// SAFETY: an arena owns its memory, like a `Vec<f32>`, and hands it out by the usual borrow rules only.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared arena gives read access only.
unsafe impl Sync for Arena {}

impl Arena {
    /// Allocates `len` zeros. Errors if there is not enough memory.
    pub fn new(len: usize) -> Result<Arena, ArenaError> {
        if len == 0 {
            return Ok(Arena { ptr: NonNull::dangling(), len });
        }
        let layout = layout(len).ok_or(ArenaError { len })?;
        // SAFETY: the layout has a size that is not zero.
        let ptr = unsafe { alloc(layout) };
        let ptr = NonNull::new(ptr.cast::<f32>()).ok_or(ArenaError { len })?;
        // SAFETY: the block was just allocated with this layout, and has room for `len` elements. It is filled after
        // the advice, because pages get their size when they are first written.
        unsafe {
            advise_huge_pages(ptr.as_ptr().cast(), layout);
            ptr.as_ptr().write_bytes(0, len);
        }
        Ok(Arena { ptr, len })
    }

    /// How many `f32` it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All elements.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: `ptr` is valid for `len` initialised elements, and aligned; a dangling one has `len` zero.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// All elements, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`; the exclusive borrow of the arena is handed on.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// The rows of one image of a view, each from the first channel of its first pixel on, `w * pixel_stride` long.
    ///
    /// Panics if the view has no such image or if a row does not lie inside the arena.
    pub fn rows_mut(&mut self, view: &View, image: usize) -> impl Iterator<Item = &mut [f32]> {
        view.assert_inside(self.len);
        assert!(image < view.n, "image {image} of a view of {}", view.n);
        let row_len = view.w * view.pixel_stride;
        assert!(view.h <= 1 || row_len <= view.row_stride, "rows of {view:?} overlap");
        let start = view.offset + image * view.image_stride;
        let step = if view.h > 1 { view.row_stride } else { row_len };
        self.as_mut_slice()[start..].chunks_mut(step.max(1)).take(view.h).map(move |row| &mut row[..row_len])
    }
}

/// The elements of an arena that is borrowed for the length of a kernel, to be written by several threads.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    ptr: *mut f32,
    arena: PhantomData<&'a mut Arena>,
}

// SAFETY: this is a pointer and no access; whoever reads or writes through it has to show that no other thread writes
// the same elements. It can be had from a borrowed arena only, and lives no longer.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// For kernels that write parts of the arena.
    pub(crate) fn new(arena: &'a mut Arena) -> Shared<'a> {
        Shared { ptr: arena.ptr.as_ptr(), arena: PhantomData }
    }

    /// The first element. A method, so that a closure takes the whole value, which is `Sync`, and not the pointer.
    pub(crate) fn ptr(&self) -> *mut f32 {
        self.ptr
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.len > 0 {
            let layout = layout(self.len).expect("the layout of a live arena is valid");
            // SAFETY: the pointer came from `alloc` with this layout.
            unsafe { dealloc(self.ptr.as_ptr().cast::<u8>(), layout) };
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot allocate an arena of {} floats", self.len)
    }
}

impl std::error::Error for ArenaError {}

fn layout(len: usize) -> Option<Layout> {
    let layout = Layout::array::<f32>(len).ok()?;
    let align = if cfg!(target_os = "linux") && layout.size() >= 2 * HUGE_PAGE { HUGE_PAGE } else { ALIGN };
    layout.align_to(align).ok()
}

/// Asks for huge pages, without which a large map needs more addresses than the CPU can translate at once.
///
/// # Safety
/// The block is allocated with this layout.
unsafe fn advise_huge_pages(ptr: *mut u8, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        unsafe extern "C" {
            fn madvise(addr: *mut u8, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
        }
        const MADV_HUGEPAGE: std::ffi::c_int = 14;
        // SAFETY: the caller vouches for the block, which starts at a page; the advice changes no contents, and a
        // failure leaves the block as it was.
        unsafe { madvise(ptr, layout.size(), MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (ptr, layout);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zero() {
        let arena = Arena::new(1001).unwrap();
        assert_eq!(arena.as_slice().as_ptr() as usize % ALIGN, 0);
        assert!(arena.as_slice().iter().all(|&x| x == 0.0));
        assert!(Arena::new(0).unwrap().as_slice().is_empty());
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Arena::new(usize::MAX / 2).is_err());
    }

    #[test]
    fn rows_skip_the_halo() {
        let mut arena = Arena::new(View::buffer_len(2, 3, 4, 2, 1)).unwrap();
        let view = View::buffer(0, 2, 3, 4, 2, 1);
        let rows: Vec<usize> = arena.rows_mut(&view, 1).map(|row| row.len()).collect();
        assert_eq!(rows, [8; 3]);
        arena.rows_mut(&view, 1).for_each(|row| row.fill(1.0));
        assert_eq!(arena.as_slice().iter().filter(|&&x| x == 1.0).count(), 24);
        assert_eq!(arena.as_slice()[view.index(1, 2, 3) + 1], 1.0);
    }
}
