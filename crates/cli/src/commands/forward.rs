//! `ferroyolo forward`: tensors in, the network's raw tensors out.

use ferroyolo::Session;

use crate::args::Forward;
use crate::error::{Outcome, Result};
use crate::model;
use crate::output::console;
use crate::output::file::{refuse_to_overwrite, write_atomically};
use crate::tensors::{read_images, to_safetensors};

/// Runs the network once on the tensor `images` and writes what comes out.
pub fn run(args: &Forward) -> Result<Outcome> {
    let images = read_images(&args.input)?;
    if images.data().iter().any(|value| !(0.0..=1.0).contains(value)) {
        console::warning(&format!("{}: images has values outside 0..1", args.input.display()));
    }
    let loaded = model::load(&args.model, args.model.threads, false)?;
    let inputs = [Some(args.input.as_path()), loaded.path.as_deref()];
    refuse_to_overwrite("--output", &args.output, inputs.into_iter().flatten())?;
    let mut session: Session = loaded.model.session();
    let outputs = session.run(&images)?;
    let named = [("output0", outputs.output0()), ("one2one", outputs.one2one()), ("proto", outputs.proto())];
    let tensors: Vec<_> = named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
    write_atomically(&args.output, &to_safetensors(&tensors)?)?;
    Ok(Outcome::Done)
}
