// What a lock guards cannot be taken out of the call.

use ferroyolo_concurrency::Locked;

fn keep(lock: &Locked<Vec<u8>>) {
    let mut kept = None;
    let _ = lock.with(|value| kept = Some(value));
    kept.expect("a value").push(0);
}

fn main() {}
