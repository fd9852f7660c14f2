//! The published blocks: one file each, one match from class name to builder.
//!
//! A builder walks its part of the module tree and adds ops to the graph. Everything it needs to know stands in the
//! tree or in the shapes of values; nothing depends on the family of the network.

mod attention;
mod bottleneck;
mod c2f;
mod c3;
mod conv;
mod detect;
mod node;
mod psa;
mod resample;
mod sppf;
mod yolox;

pub(crate) use detect::{Branch, DetectHead, Level, Regression};
pub(crate) use node::ModuleNode;

use crate::error::{Error, Result};
use crate::graph::{Builder, Graph, ValueId};
use crate::weights::{Document, Weights};

/// Builds the graph of a network and the description of its head.
///
/// Errors name the layer: a class that is not known, an attribute that is missing, a tensor that does not fit.
pub(crate) fn build_network(document: &Document, weights: Weights<'_>) -> Result<(Graph, DetectHead)> {
    let mut builder = Builder::new(document.input.clone(), weights);
    let Some((head, body)) = document.layers.split_last() else {
        return Err(Error::format("ferroyolo.model: layers", "the network has no layers"));
    };
    let mut outputs = Vec::with_capacity(body.len());
    let inputs_of = |from: &[i64], outputs: &[ValueId], builder: &Builder<'_>| -> Vec<ValueId> {
        from.iter().map(|&idx| usize::try_from(idx).map_or(builder.input(), |idx| outputs[idx])).collect()
    };
    for layer in body {
        let inputs = inputs_of(&layer.from, &outputs, &builder);
        outputs.push(build(&mut builder, &ModuleNode::root(layer), &inputs)?);
    }
    let inputs = inputs_of(&head.from, &outputs, &builder);
    let head = detect::build_head(&mut builder, &ModuleNode::root(head), &inputs, document)?;
    let graph = builder.finish(head.outputs())?;
    Ok((graph, head))
}

/// Builds any block but a head.
pub(crate) fn build(b: &mut Builder<'_>, m: &ModuleNode<'_>, inputs: &[ValueId]) -> Result<ValueId> {
    match m.class() {
        "Concat" => b.concat(m.path(), inputs),
        _ => build_single(b, m, m.single(inputs)?),
    }
}

/// Builds a block that takes one value.
fn build_single(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    match m.class() {
        "Conv" | "DWConv" | "RepConv" | "RepVGGDW" | "yolox.BaseConv" => conv::build(b, m, x),
        "Conv2d" => conv::build_plain(b, m, x),
        "Sequential" => build_chain(b, m, x),
        "Identity" => Ok(x),
        "Bottleneck" => bottleneck::build(b, m, x),
        "C2f" | "C3k2" => c2f::build(b, m, x),
        "C3" | "C3k" => c3::build(b, m, x),
        "SPPF" => sppf::build(b, m, x),
        "PSABlock" => psa::build_block(b, m, x),
        "C2PSA" => psa::build(b, m, x),
        "Attention" => attention::build(b, m, x),
        "Upsample" => resample::build_upsample(b, m, x),
        "MaxPool2d" => resample::build_max_pool(b, m, x),
        "yolox.Focus" => yolox::build_focus(b, m, x),
        "yolox.DWConv" => yolox::build_depthwise_separable(b, m, x),
        "yolox.CSPLayer" => yolox::build_csp_layer(b, m, x),
        "yolox.Bottleneck" => yolox::build_bottleneck(b, m, x),
        "yolox.SPPBottleneck" => yolox::build_spp_bottleneck(b, m, x),
        class => Err(Error::unsupported(m.path(), format!("no builder for a module of class {class:?}"))),
    }
}

/// Feeds a value through all children in order.
fn build_chain(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    m.children().try_fold(x, |x, child| build_single(b, &child, x))
}
