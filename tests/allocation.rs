//! Running a planned network allocates nothing of tensor size.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ferroyolo::{ModelOptions, Tensor};
use ferroyolo_tests::{demo_bytes, load};

/// Allocations from this size on are counted. The smallest activation of the demo network at 320 x 320 is larger.
const TENSOR_BYTES: usize = 4096;

struct Counting;

static LARGE: AtomicUsize = AtomicUsize::new(0);

fn count(size: usize) {
    if size >= TENSOR_BYTES {
        LARGE.fetch_add(1, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator can be written in no other way")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_planned_run_allocates_no_tensor() {
    for threads in [1, 2] {
        let options = ModelOptions { threads: Some(threads), ..ModelOptions::default() };
        let model = load("demo.safetensors", &demo_bytes(), &options);
        let images =
            Tensor::new(vec![2, 3, 320, 320], vec![0.5; 2 * 3 * 320 * 320]).expect("a shape that fits");
        let mut session = model.session();
        session.run(&images).expect("the run that makes the plan");
        let before = LARGE.load(Ordering::Relaxed);
        for _ in 0..3 {
            session.run(&images).expect("a planned run");
        }
        assert_eq!(LARGE.load(Ordering::Relaxed) - before, 0, "allocations on {threads} threads");
        // The counter works: another shape needs a new plan and new outputs.
        let images =
            Tensor::new(vec![3, 3, 320, 320], vec![0.5; 3 * 3 * 320 * 320]).expect("a shape that fits");
        session.run(&images).expect("a run that needs a new plan");
        assert!(LARGE.load(Ordering::Relaxed) > before);
    }
}
