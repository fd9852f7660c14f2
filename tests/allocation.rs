//! Running a planned network allocates nothing of tensor size, and a further session costs its arena.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ferroyolo::{ModelOptions, Tensor};
use ferroyolo_tests::{demo_bytes, load};

/// Allocations from this size on are counted. The smallest activation of the demo network at 320 x 320 is larger.
const TENSOR_BYTES: usize = 4096;

struct Counting;

static LARGE: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Both tests read the counters, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn count(size: usize) {
    LIVE.fetch_add(size, Ordering::Relaxed);
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
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        count(new_size);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_second_session_costs_its_arena() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let model = load("demo.safetensors", &demo_bytes(), &ModelOptions::default());
    let images = Tensor::new(vec![1, 3, 320, 320], vec![0.5; 3 * 320 * 320]).expect("a shape that fits");
    let mut first = model.session();
    first.run(&images).expect("the run that makes the plan");
    let before = LIVE.load(Ordering::Relaxed);
    let mut second = model.session();
    let output_bytes = size_of_val(second.run(&images).expect("a run").output0().expect("the head").data);
    let cost = LIVE.load(Ordering::Relaxed) - before;
    let (arena, weights) = (second.arena_bytes(), model.weights_bytes());
    assert!(arena > 0 && cost >= arena);
    // Beside the arena there are the outputs and the decoder's lists; nothing of the size of the weights.
    assert!(
        cost < arena + output_bytes + weights / 10,
        "{cost} bytes, arena {arena}, outputs {output_bytes}"
    );
}

#[test]
fn a_planned_run_allocates_no_tensor() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
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
