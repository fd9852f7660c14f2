// An instance goes back with its guard, and nothing of it stays.

use ferroyolo_concurrency::{Factory, Pool};

fn keep<F: Factory>(pool: &Pool<F>) {
    let mut kept = None;
    if let Ok(mut guard) = pool.get() {
        kept = Some(&mut *guard);
    }
    drop(kept);
}

fn main() {}
