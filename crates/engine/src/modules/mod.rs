//! The published blocks: one file each, one match from class name to builder.
//!
//! A builder walks its part of the module tree and adds ops to the graph. Everything it needs to know stands in the
//! tree or in the shapes of values; nothing depends on the family of the network.

mod a2c2f;
mod attention;
mod bottleneck;
mod c2;
mod c2f;
mod c3;
mod cb;
mod cib;
mod conv;
mod detect;
mod downsample;
mod elan;
mod ghost;
mod head;
mod map_head;
mod node;
mod proto;
mod psa;
mod resample;
mod sppf;
mod yolox;

pub(crate) use detect::{Branch, DetectHead, Extra, Level, Regression};
pub(crate) use head::{Branches, NetworkHead};
pub(crate) use map_head::{DEPTH_RANGE, MapHead, MapKind};
pub(crate) use node::ModuleNode;

use crate::error::{Error, Result};
use crate::graph::{Builder, Graph, ValueId};
use crate::weights::{Document, Layer, Weights};

/// Builds the graph of a network and the description of its head.
///
/// Errors name the layer: a class that is not known, an attribute that is missing, a tensor that does not fit.
pub(crate) fn build_network(document: &Document, weights: Weights<'_>) -> Result<(Graph, NetworkHead)> {
    let mut builder = Builder::new(document.input.clone(), weights);
    let Some((head, body)) = document.layers.split_last() else {
        return Err(Error::format("ferroyolo.model: layers", "the network has no layers"));
    };
    let picture = [builder.input()];
    let mut outputs: Vec<Vec<ValueId>> = Vec::with_capacity(body.len());
    for layer in body {
        let inputs = inputs_of(layer, &picture, &outputs);
        let built = build_layer(&mut builder, &ModuleNode::root(layer), &inputs)?;
        outputs.push(built);
    }
    let module = ModuleNode::root(head);
    let inputs = inputs_of(head, &picture, &outputs);
    let inputs = inputs.iter().map(|parts| module.single(parts)).collect::<Result<Vec<_>>>()?;
    let head = head::build(&mut builder, &module, &inputs, document)?;
    let graph = builder.finish(head.outputs())?;
    Ok((graph, head))
}

/// What a layer takes: the picture, or what earlier layers gave.
fn inputs_of<'a>(layer: &Layer, picture: &'a [ValueId], outputs: &'a [Vec<ValueId>]) -> Vec<&'a [ValueId]> {
    let of = |&idx: &i64| usize::try_from(idx).map_or(picture, |idx| outputs[idx].as_slice());
    layer.from.iter().map(of).collect()
}

/// Builds a layer that is no head. Each input is what another layer gives: nearly always one value.
fn build_layer(b: &mut Builder<'_>, m: &ModuleNode<'_>, inputs: &[&[ValueId]]) -> Result<Vec<ValueId>> {
    match m.class() {
        "CBFuse" => return Ok(vec![cb::build_fuse(b, m, inputs)?]),
        "CBLinear" => {
            let inputs: Vec<ValueId> = inputs.iter().copied().flatten().copied().collect();
            let x = m.single(&inputs)?;
            return cb::build_linear(b, m, x);
        }
        _ => {}
    }
    let inputs = inputs.iter().map(|parts| m.single(parts)).collect::<Result<Vec<_>>>()?;
    let value = match m.class() {
        "Concat" => b.concat(m.path(), &inputs)?,
        _ => build_single(b, m, m.single(&inputs)?)?,
    };
    Ok(vec![value])
}

/// Builds a block that takes one value.
fn build_single(b: &mut Builder<'_>, m: &ModuleNode<'_>, x: ValueId) -> Result<ValueId> {
    match m.class() {
        "Conv" | "DWConv" | "RepConv" | "RepVGGDW" | "yolox.BaseConv" => conv::build(b, m, x),
        "Conv2d" => conv::build_plain(b, m, x),
        "ConvTranspose" => conv::build_transposed(b, m, x),
        "ConvTranspose2d" => conv::build_plain_transposed(b, m, x),
        "Sequential" => build_chain(b, m, x),
        "Identity" | "Silence" | "Dropout" => Ok(x),
        "Bottleneck" | "RepBottleneck" => bottleneck::build(b, m, x),
        "C2" => c2::build(b, m, x),
        "C2f" | "C3k2" | "C2fCIB" => c2f::build(b, m, x),
        "C3" | "C3k" | "C3Ghost" | "RepCSP" => c3::build(b, m, x),
        "CIB" => cib::build(b, m, x),
        "ELAN1" | "RepNCSPELAN4" => elan::build(b, m, x),
        "SPPELAN" => elan::build_pooling(b, m, x),
        "AConv" => downsample::build_aconv(b, m, x),
        "ADown" => downsample::build_adown(b, m, x),
        "SCDown" => downsample::build_scdown(b, m, x),
        "GhostConv" => ghost::build_conv(b, m, x),
        "GhostBottleneck" => ghost::build_bottleneck(b, m, x),
        "SPP" => sppf::build_spp(b, m, x),
        "SPPF" => sppf::build(b, m, x),
        "PSA" => psa::build_psa(b, m, x),
        "PSABlock" => psa::build_block(b, m, x),
        "C2PSA" => psa::build(b, m, x),
        "Attention" => attention::build(b, m, x),
        "AAttn" => attention::build_area(b, m, x),
        "ABlock" => a2c2f::build_block(b, m, x),
        "A2C2f" => a2c2f::build(b, m, x),
        "Upsample" => resample::build_upsample(b, m, x),
        "MaxPool2d" => resample::build_max_pool(b, m, x),
        "ZeroPad2d" => resample::build_zero_pad(b, m, x),
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
