//! How wrappers that own several instances make them.

/// Makes instances for [`PerThread`](crate::PerThread) and [`Pool`](crate::Pool).
///
/// Every closure `Fn() -> Result<T, E>` that threads may share is one. What is expensive and never changes, such as a
/// network's weights, belongs into the factory, behind an `Arc`; what one caller at a time works with is the instance.
pub trait Factory: Send + Sync {
    /// What one caller at a time uses.
    type Instance: Send;
    /// Why an instance could not be made.
    type Error: Send;

    /// Makes one. May be called by several threads at the same time.
    fn make(&self) -> Result<Self::Instance, Self::Error>;
}

impl<F, T, E> Factory for F
where
    F: Fn() -> Result<T, E> + Send + Sync,
    T: Send,
    E: Send,
{
    type Instance = T;
    type Error = E;

    fn make(&self) -> Result<T, E> {
        self()
    }
}
