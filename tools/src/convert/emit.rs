//! Turns a module tree into the document's modules and the tensors that inference needs.

use std::collections::HashSet;

use crate::convert::Dtype;
use crate::credit::Credit;
use crate::document::Module;
use crate::error::{Error, Result};
use crate::fold::{self, Affine, Branch};
use crate::torch::{ScalarType, TensorRef, TreeModule};
use crate::write::{Data, OutTensor, convert};

/// What a tensor takes in the list, among the names, and in the header.
const TENSOR_SIZE: usize = 2 * size_of::<OutTensor>() + 2 * size_of::<String>() + 160;

/// What is in memory for each output channel while batch norms are folded: seven vectors in double precision, and the
/// factor and offset of up to three branches.
const CHANNEL_SIZE: usize = (7 + 2 * 3) * size_of::<f64>();

/// Collects tensors while modules are turned into the document's.
pub(crate) struct Emitter<'a> {
    file: &'a [u8],
    dtype: Dtype,
    tensors: Vec<OutTensor>,
    names: HashSet<String>,
    credit: Credit,
    /// Bytes of the checkpoint's tensors taken so far; a tensor may be named twice, but not without end.
    taken: usize,
}

impl<'a> Emitter<'a> {
    pub(crate) fn new(file: &'a [u8], dtype: Dtype, credit: Credit) -> Self {
        Self { file, dtype, tensors: Vec::new(), names: HashSet::new(), credit, taken: 0 }
    }

    /// Takes memory for something else that is made out of the checkpoint.
    pub(crate) fn pay(&mut self, n: usize, place: &str) -> Result<()> {
        self.credit.pay(n, place)
    }

    pub(crate) fn into_tensors(self) -> Vec<OutTensor> {
        self.tensors
    }

    /// Adds the tensors of the module at `path` and returns its description.
    pub(crate) fn emit(&mut self, path: &str, module: TreeModule) -> Result<Module> {
        match module.class.as_str() {
            "Conv2d" | "ConvTranspose2d" | "Linear" => return self.emit_plain(path, module),
            // 3x3 + 1x1 convolutions, each with its batch norm, and perhaps a batch norm of the input.
            "RepConv" if module.child("conv1").is_some() => {
                return self.emit_sum(path, module, ["conv1", "conv2"], Some("bn"));
            }
            // 7x7 + 3x3 depthwise convolutions, each with its batch norm.
            "RepVGGDW" if module.child("conv1").is_some() => {
                return self.emit_sum(path, module, ["conv", "conv1"], None);
            }
            "BatchNorm1d" | "BatchNorm2d" | "SyncBatchNorm" => {
                return Err(Error::unsupported(
                    path,
                    "batch norm does not follow a convolution it can be folded into",
                ));
            }
            // What it computes follows from its one attribute.
            "DFL" => return Ok(leaf(module)),
            _ => {}
        }
        let folded = folded_conv(&module);
        if let Some(name) = folded {
            self.fold_conv(path, &module, name)?;
        }
        let mut children = Vec::with_capacity(module.children.len());
        for (name, child) in module.children {
            if is_training_only(&module.class, &name, &child) || (folded.is_some() && name == "bn") {
                continue;
            }
            let child = match folded {
                Some(conv) if name == conv => leaf(child),
                _ => self.emit(&join(path, &name), child)?,
            };
            children.push((name, child));
        }
        for (name, tensor) in &module.tensors {
            self.other(join(path, name), tensor)?;
        }
        Ok(Module { class: module.class, attrs: module.attrs, children })
    }

    /// Adds the kernel of the convolution `name` of a module, with the batch norm behind it folded.
    fn fold_conv(&mut self, path: &str, module: &TreeModule, name: &str) -> Result<()> {
        let (Some(conv), Some(bn)) = (module.child(name), module.child("bn")) else { return Ok(()) };
        let conv_path = join(path, name);
        let n_out = n_out(conv, &conv_path)?;
        self.credit.check(n_out * CHANNEL_SIZE, path)?;
        let bias = self.conv_bias(conv, &conv_path, n_out)?;
        let affine = fold::batch_norm(self.file, bn, &join(path, "bn"), n_out, bias.as_deref())?;
        self.kernel(&conv_path, weight(conv, &conv_path)?)?;
        self.affine(&conv_path, affine)
    }

    /// A convolution or linear layer that no batch norm follows.
    fn emit_plain(&mut self, path: &str, module: TreeModule) -> Result<Module> {
        let n_out = n_out(&module, path)?;
        self.credit.check(n_out * CHANNEL_SIZE, path)?;
        self.kernel(path, weight(&module, path)?)?;
        if let Some(bias) = self.conv_bias(&module, path, n_out)? {
            self.push(OutTensor::f32(format!("{path}.bias"), vec![n_out], bias)?)?;
        }
        if let Some((name, _)) = module.tensors.iter().find(|(name, _)| name != "weight" && name != "bias") {
            return Err(Error::unsupported(
                format!("{path}.{name}"),
                format!("not a tensor of a {}", module.class),
            ));
        }
        Ok(leaf(module))
    }

    /// Parallel convolutions of these names, and perhaps a batch norm of the input, as one convolution.
    fn emit_sum(
        &mut self,
        path: &str,
        mut module: TreeModule,
        names: [&str; 2],
        identity: Option<&str>,
    ) -> Result<Module> {
        let mut branches = Vec::with_capacity(names.len());
        let mut convs = Vec::with_capacity(names.len());
        for name in names {
            let branch_path = join(path, name);
            let branch =
                module.child(name).and_then(|branch| Some((branch.child("conv")?, branch.child("bn")?)));
            let (conv, bn) = branch.ok_or_else(|| {
                Error::unsupported(&*branch_path, "branch is not a convolution and a batch norm")
            })?;
            let conv_path = join(&branch_path, "conv");
            let n_out = n_out(conv, &conv_path)?;
            self.credit.check(n_out * CHANNEL_SIZE, path)?;
            let bias = self.conv_bias(conv, &conv_path, n_out)?;
            let affine = fold::batch_norm(self.file, bn, &join(&branch_path, "bn"), n_out, bias.as_deref())?;
            let kernel = weight(conv, &conv_path)?;
            self.take(&conv_path, kernel)?;
            fold::check_finite(self.file, kernel, &format!("{conv_path}.weight"))?;
            branches.push(Branch { kernel, affine });
            convs.push(conv);
        }
        check_same_grid(path, convs[0], convs[1])?;
        let n_out = branches[0].affine.scale.len();
        let identity = identity.and_then(|name| Some((name, module.child(name)?)));
        let identity =
            identity.map(|(name, bn)| fold::batch_norm(self.file, bn, &join(path, name), n_out, None));
        let identity = identity.transpose()?;
        let groups = convs[0].attrs.get("groups").and_then(serde_json::Value::as_u64).unwrap_or(1) as usize;
        // Kernels that lie with gaps are gathered.
        self.credit.check(branches.iter().map(|branch| branch.kernel.n_bytes()).sum(), path)?;
        let sum = fold::Sum::new(self.file, path, &branches, identity.as_ref(), groups)?;

        let conv_path = join(path, "conv");
        let shape = branches[0].kernel.shape.clone();
        // The sum in single precision, and one output channel of it in double precision.
        let n_elements = branches[0].kernel.n_elements();
        self.credit.check((n_elements + 2 * n_elements / n_out) * size_of::<f32>(), path)?;
        self.push(OutTensor::f32(format!("{conv_path}.weight"), shape, sum.kernel())?)?;
        self.push(OutTensor::f32(format!("{conv_path}.bias"), vec![n_out], sum.bias())?)?;
        let conv =
            Module { class: convs[0].class.clone(), attrs: convs[0].attrs.clone(), children: Vec::new() };
        let act = module.children.iter().position(|(name, _)| name == "act");
        let act = match act.map(|idx| module.children.swap_remove(idx)) {
            Some((name, act)) => self.emit(&join(path, &name), act)?,
            None => Module::new("Identity", []),
        };
        let children = vec![("conv".to_owned(), conv), ("act".to_owned(), act)];
        Ok(Module { class: module.class, attrs: module.attrs, children })
    }

    /// Adds `<path>.weight`, in the element type that was asked for.
    pub(crate) fn kernel(&mut self, path: &str, tensor: &TensorRef) -> Result<()> {
        let name = format!("{path}.weight");
        let want = match self.dtype {
            Dtype::F16 => ScalarType::F16,
            Dtype::F32 => ScalarType::F32,
            Dtype::Keep => kept(tensor.ty),
        };
        if !tensor.ty.is_float() {
            return Err(Error::tensor(name, format!("kernel is of type {}", tensor.ty.name())));
        }
        self.add(name, tensor, want)
    }

    /// Adds `<path>.scale` and `<path>.bias`.
    pub(crate) fn affine(&mut self, path: &str, affine: Affine) -> Result<()> {
        let n = affine.scale.len();
        self.push(OutTensor::f32(format!("{path}.scale"), vec![n], affine.scale)?)?;
        self.push(OutTensor::f32(format!("{path}.bias"), vec![n], affine.bias)?)
    }

    /// Adds a tensor as it stands in the checkpoint.
    fn other(&mut self, name: String, tensor: &TensorRef) -> Result<()> {
        self.add(name, tensor, kept(tensor.ty))
    }

    fn add(&mut self, name: String, tensor: &TensorRef, want: ScalarType) -> Result<()> {
        self.take(&name, tensor)?;
        if tensor.contiguous().is_none() {
            // Once as it is and once as it will be.
            self.credit.check(tensor.n_bytes() + tensor.n_elements() * want.size(), &name)?;
        }
        fold::check_finite(self.file, tensor, &name)?;
        if want != tensor.ty {
            check_range(self.file, tensor, want, &name)?;
        }
        let data = match tensor.contiguous() {
            Some(range) => Data::File(range, tensor.ty),
            None if want == tensor.ty => Data::Owned(tensor.bytes(self.file).into_owned()),
            None => Data::Owned(convert(&tensor.bytes(self.file), tensor.ty, want)),
        };
        self.push(OutTensor { name, ty: want, shape: tensor.shape.clone(), data })
    }

    pub(crate) fn conv_bias(&mut self, conv: &TreeModule, path: &str, n: usize) -> Result<Option<Vec<f64>>> {
        let place = format!("{path}.bias");
        conv.tensor("bias").map(|bias| fold::channel_values(self.file, bias, &place, n)).transpose()
    }

    fn take(&mut self, place: &str, tensor: &TensorRef) -> Result<()> {
        self.taken = self.taken.saturating_add(tensor.n_bytes());
        if self.taken > 2 * self.file.len() {
            return Err(Error::limit(place, "tensors name more than twice the bytes that the file has"));
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, tensor: OutTensor) -> Result<()> {
        if !self.names.insert(tensor.name.clone()) {
            return Err(Error::corrupt(tensor.name, "tensor is there twice"));
        }
        let owned = if let Data::Owned(bytes) = &tensor.data { bytes.len() } else { 0 };
        self.credit.pay(TENSOR_SIZE + 4 * tensor.name.len() + owned, &tensor.name)?;
        self.tensors.push(tensor);
        Ok(())
    }
}

/// A module that is nothing but its attributes and its tensors.
fn leaf(module: TreeModule) -> Module {
    Module { class: module.class, attrs: module.attrs, children: Vec::new() }
}

/// The name of the convolution of a module whose `bn` is to be folded into it.
fn folded_conv(module: &TreeModule) -> Option<&'static str> {
    module.child("bn").filter(|bn| matches!(bn.class.as_str(), "BatchNorm2d" | "SyncBatchNorm"))?;
    ["conv", "conv_transpose"].into_iter().find(|name| {
        module.child(name).is_some_and(|conv| matches!(conv.class.as_str(), "Conv2d" | "ConvTranspose2d"))
    })
}

/// Parts that only the loss looks at.
fn is_training_only(class: &str, name: &str, child: &TreeModule) -> bool {
    child.class == "RealNVP"
        || name.ends_with("cv4_sigma")
        || (class == "Proto26" && name == "semseg")
        || (class == "SemanticSegment" && name == "aux_head")
}

fn weight<'a>(conv: &'a TreeModule, path: &str) -> Result<&'a TensorRef> {
    conv.tensor("weight")
        .ok_or_else(|| Error::tensor(format!("{path}.weight"), format!("{} has no weight", conv.class)))
}

/// The number of output channels, which attributes and kernel have to agree on.
fn n_out(conv: &TreeModule, path: &str) -> Result<usize> {
    let shape = &weight(conv, path)?.shape;
    let place = || format!("{path}.weight");
    let attr = |name: &str| conv.attrs.get(name).and_then(serde_json::Value::as_u64).map(|n| n as usize);
    let malformed = |key: &str| Error::corrupt(path, format!("{} has no {key}", conv.class));
    if conv.class == "Linear" {
        let (n_out, n_in) = (
            attr("out_features").ok_or_else(|| malformed("out_features"))?,
            attr("in_features").ok_or_else(|| malformed("in_features"))?,
        );
        return match shape.as_slice() == [n_out, n_in] {
            true => Ok(n_out),
            false => Err(Error::tensor(place(), format!("shape is {shape:?}, expected [{n_out}, {n_in}]"))),
        };
    }
    let n_out = attr("out_channels").ok_or_else(|| malformed("out_channels"))?;
    let n_in = attr("in_channels").ok_or_else(|| malformed("in_channels"))?;
    let groups = attr("groups").filter(|&groups| groups > 0).ok_or_else(|| malformed("groups"))?;
    let (first, second) = if conv.class == "ConvTranspose2d" { (n_in, n_out) } else { (n_out, n_in) };
    let fits = shape.len() == 4 && shape[0] == first && shape[1].checked_mul(groups) == Some(second);
    let kernel_size = conv.attrs.get("kernel_size").and_then(serde_json::Value::as_array);
    let fits = fits
        && kernel_size.is_some_and(|size| {
            size.len() == 2 && (0..2).all(|axis| size[axis].as_u64() == Some(shape[2 + axis] as u64))
        });
    if !fits || shape.contains(&0) {
        let message =
            format!("shape is {shape:?}, expected [{first}, {second} / {groups}] and the kernel size");
        return Err(Error::tensor(place(), message));
    }
    Ok(n_out)
}

/// Parallel convolutions can be added only if their outputs lie on the same grid.
fn check_same_grid(path: &str, a: &TreeModule, b: &TreeModule) -> Result<()> {
    let pair = |conv: &TreeModule, key: &str| -> Option<[i64; 2]> {
        match conv.attrs.get(key)?.as_array()?.as_slice() {
            [h, w] => Some([h.as_i64()?, w.as_i64()?]),
            _ => None,
        }
    };
    let same = ["stride", "dilation", "groups"].iter().all(|key| a.attrs.get(*key) == b.attrs.get(*key));
    let centred = pair(a, "dilation") == Some([1, 1])
        && (0..2).all(|axis| {
            let offset =
                |conv| Some(2 * pair(conv, "padding")?[axis] - (pair(conv, "kernel_size")?[axis] - 1));
            offset(a).is_some() && offset(a) == offset(b)
        });
    if same && centred {
        Ok(())
    } else {
        Err(Error::unsupported(path, "branches do not lie on the same grid"))
    }
}

fn kept(ty: ScalarType) -> ScalarType {
    if ty == ScalarType::F64 { ScalarType::F32 } else { ty }
}

/// Errors, naming the element, if a value is infinite as `want`.
fn check_range(file: &[u8], tensor: &TensorRef, want: ScalarType, name: &str) -> Result<()> {
    let bytes = tensor.bytes(file);
    match tensor.ty.values(&bytes).enumerate().find(|(_, value)| overflows(*value, want)) {
        Some((idx, value)) => {
            Err(Error::tensor(name, format!("element {idx} is {value}, which does not fit {}", want.name())))
        }
        None => Ok(()),
    }
}

fn overflows(value: f64, want: ScalarType) -> bool {
    match want {
        ScalarType::F16 => half::f16::from_f64(value).is_infinite(),
        _ => (value as f32).is_infinite(),
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}
