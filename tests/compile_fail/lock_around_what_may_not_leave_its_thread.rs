// A lock makes a value shareable only if it may be used by one thread after the other.

use std::rc::Rc;
use std::thread;

use ferroyolo_concurrency::Locked;

fn share(lock: &Locked<Rc<u8>>) {
    thread::scope(|scope| {
        scope.spawn(|| lock.with(|value| **value));
    });
}

fn main() {}
