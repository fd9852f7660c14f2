//! Builds archives, pickles and checkpoints for tests.

/// A Python value to pickle.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Py {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Tuple(Vec<Py>),
    List(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    Set(Vec<Py>),
    Global(String, String),
    /// Called with a tuple of arguments, through REDUCE.
    Call(Box<Py>, Vec<Py>),
    /// An object of a class, through NEWOBJ, with its state, through BUILD.
    Object(Box<Py>, Box<Py>),
    Persistent(Box<Py>),
}

impl From<&str> for Py {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<i64> for Py {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

pub(crate) fn global(module: &str, name: &str) -> Py {
    Py::Global(module.to_owned(), name.to_owned())
}

pub(crate) fn dict<K: Into<Py>>(items: impl IntoIterator<Item = (K, Py)>) -> Py {
    Py::Dict(items.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

pub(crate) fn ints(values: &[usize]) -> Py {
    Py::Tuple(values.iter().map(|&value| Py::Int(value as i64)).collect())
}

/// The pickle of a value, in protocol 2.
pub(crate) fn pickle(value: &Py) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    write(&mut out, value);
    out.push(b'.');
    out
}

fn write(out: &mut Vec<u8>, value: &Py) {
    match value {
        Py::None => out.push(b'N'),
        Py::Bool(value) => out.push(if *value { 0x88 } else { 0x89 }),
        Py::Int(value) => match *value {
            0..=0xff => out.extend([b'K', *value as u8]),
            0x100..=0xffff => {
                out.push(b'M');
                out.extend((*value as u16).to_le_bytes());
            }
            _ => match i32::try_from(*value) {
                Ok(value) => {
                    out.push(b'J');
                    out.extend(value.to_le_bytes());
                }
                Err(_) => {
                    out.extend([0x8a, 8]);
                    out.extend(value.to_le_bytes());
                }
            },
        },
        Py::Float(value) => {
            out.push(b'G');
            out.extend(value.to_be_bytes());
        }
        Py::Str(text) => {
            out.push(b'X');
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        }
        Py::Tuple(items) => {
            match items.len() {
                0 => return out.push(b')'),
                1..=3 => {
                    items.iter().for_each(|item| write(out, item));
                    return out.push(0x84 + items.len() as u8);
                }
                _ => out.push(b'('),
            }
            items.iter().for_each(|item| write(out, item));
            out.push(b't');
        }
        Py::List(items) => {
            out.push(b']');
            match items.as_slice() {
                [] => {}
                [item] => {
                    write(out, item);
                    out.push(b'a');
                }
                items => {
                    out.push(b'(');
                    items.iter().for_each(|item| write(out, item));
                    out.push(b'e');
                }
            }
        }
        Py::Dict(items) => {
            out.push(b'}');
            match items.as_slice() {
                [] => {}
                [(key, value)] => {
                    write(out, key);
                    write(out, value);
                    out.push(b's');
                }
                items => {
                    out.push(b'(');
                    for (key, value) in items {
                        write(out, key);
                        write(out, value);
                    }
                    out.push(b'u');
                }
            }
        }
        Py::Set(items) => {
            out.extend([0x8f, b'(']);
            items.iter().for_each(|item| write(out, item));
            out.push(0x90);
        }
        Py::Global(module, name) => {
            out.push(b'c');
            out.extend(module.as_bytes());
            out.push(b'\n');
            out.extend(name.as_bytes());
            out.push(b'\n');
        }
        Py::Call(callee, args) => {
            write(out, callee);
            write(out, &Py::Tuple(args.clone()));
            out.push(b'R');
        }
        Py::Object(class, state) => {
            write(out, class);
            out.extend([b')', 0x81]);
            write(out, state);
            out.push(b'b');
        }
        Py::Persistent(id) => {
            write(out, id);
            out.push(b'Q');
        }
    }
}

/// How local headers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZipStyle {
    /// As PyTorch writes: sizes after the data, 64-bit end record, padding up to 64 bytes.
    Torch,
    /// As Python's zipfile writes.
    Plain,
}

/// A zip archive of stored entries.
pub(crate) fn zip(style: ZipStyle, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let later = style == ZipStyle::Torch;
    let flags: u16 = if later { 0x808 } else { 0 };
    for (name, data) in entries {
        let crc = crc32fast::hash(data);
        let size = data.len() as u32;
        let offset = out.len() as u32;
        let padding = if later { 64 - (out.len() + 34 + name.len()) % 64 } else { 0 };
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(flags.to_le_bytes());
        out.extend([0; 6]);
        let now = if later { [0; 3] } else { [crc, size, size] };
        now.iter().for_each(|field| out.extend(field.to_le_bytes()));
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((if later { padding as u16 + 4 } else { 0 }).to_le_bytes());
        out.extend(name.as_bytes());
        if later {
            out.extend(b"FB");
            out.extend((padding as u16).to_le_bytes());
            out.extend(std::iter::repeat_n(b'Z', padding));
        }
        out.extend(*data);
        if later {
            out.extend(b"PK\x07\x08");
            [crc, size, size].iter().for_each(|field| out.extend(field.to_le_bytes()));
        }
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        directory.extend(flags.to_le_bytes());
        directory.extend([0; 6]);
        [crc, size, size].iter().for_each(|field| directory.extend(field.to_le_bytes()));
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, n) = (out.len() as u64, entries.len() as u64);
    let len = directory.len() as u64;
    out.extend(directory);
    if later {
        let end_at = out.len() as u64;
        out.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x1e\x03\x2d\0\0\0\0\0\0\0\0\0");
        [n, n, len, at].iter().for_each(|field| out.extend(field.to_le_bytes()));
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end_at.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    [n as u16, n as u16].iter().for_each(|field| out.extend(field.to_le_bytes()));
    [len as u32, at as u32].iter().for_each(|field| out.extend(field.to_le_bytes()));
    out.extend([0; 2]);
    out
}

/// A checkpoint around the pickle `data`.
pub(crate) fn checkpoint(data: &[u8]) -> Vec<u8> {
    zip(ZipStyle::Torch, &[("x/data.pkl", data), ("x/byteorder", b"little"), ("x/version", b"3\n")])
}

/// The opcodes of a module that holds one module twice, which holds one twice, and so on: a tree of 2^levels.
pub(crate) fn doubled(levels: usize) -> Vec<u8> {
    let start =
        b"ctorch.nn.modules.container\nSequential\n)\x81}(X\x0b\0\0\0_parameters}X\x08\0\0\0_buffers}";
    let mut code = start.to_vec();
    if levels > 0 {
        code.extend(b"X\x08\0\0\0_modules}(X\x01\0\0\x000");
        code.extend(doubled(levels - 1));
        code.extend(b"q\0X\x01\0\0\x001h\0u");
    }
    code.extend(b"ub");
    code
}

/// Builds checkpoints with tensors in them.
#[derive(Default)]
pub(crate) struct Builder {
    storages: Vec<Vec<u8>>,
}

impl Builder {
    /// The persistent id of a new storage.
    pub(crate) fn storage(&mut self, class: &str, n: usize, bytes: Vec<u8>) -> Py {
        self.storages.push(bytes);
        let key = (self.storages.len() - 1).to_string();
        let id =
            vec!["storage".into(), global("torch", class), Py::Str(key), "cpu".into(), Py::Int(n as i64)];
        Py::Persistent(Box::new(Py::Tuple(id)))
    }

    /// A view of a storage.
    pub(crate) fn view(storage: Py, offset: usize, shape: &[usize], strides: &[usize]) -> Py {
        let hooks = Py::Call(Box::new(global("collections", "OrderedDict")), vec![]);
        let args = vec![storage, Py::Int(offset as i64), ints(shape), ints(strides), Py::Bool(false), hooks];
        Py::Call(Box::new(global("torch._utils", "_rebuild_tensor_v2")), args)
    }

    /// A contiguous tensor of 32-bit floats.
    pub(crate) fn tensor(&mut self, shape: &[usize], values: &[f32]) -> Py {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let storage = self.storage("FloatStorage", values.len(), bytes);
        Self::view(storage, 0, shape, &contiguous(shape))
    }

    /// A contiguous tensor of 16-bit floats.
    pub(crate) fn half(&mut self, shape: &[usize], values: &[f32]) -> Py {
        let bytes = values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
        let storage = self.storage("HalfStorage", values.len(), bytes);
        Self::view(storage, 0, shape, &contiguous(shape))
    }

    /// A module with the given attributes, tensors and children.
    pub(crate) fn module(
        class: (&str, &str),
        attrs: Vec<(&str, Py)>,
        tensors: Vec<(&str, Py)>,
        children: Vec<(&str, Py)>,
    ) -> Py {
        let mut state: Vec<(&str, Py)> = vec![
            ("training", Py::Bool(false)),
            ("_parameters", dict(tensors)),
            ("_buffers", dict(Vec::<(&str, Py)>::new())),
            ("_modules", dict(children)),
        ];
        state.extend(attrs);
        Py::Object(Box::new(global(class.0, class.1)), Box::new(dict(state)))
    }

    /// A 2d convolution with this kernel.
    pub(crate) fn conv2d(
        &mut self,
        shape: [usize; 4],
        groups: usize,
        kernel: &[f32],
        bias: Option<&[f32]>,
    ) -> Py {
        let kernel = self.tensor(&shape, kernel);
        let conv = Self::conv2d_of(shape, groups, kernel);
        match bias {
            Some(bias) => with_tensor(conv, "bias", self.tensor(&[shape[0]], bias)),
            None => conv,
        }
    }

    /// A 2d convolution whose kernel is this tensor, of this shape.
    pub(crate) fn conv2d_of(shape: [usize; 4], groups: usize, kernel: Py) -> Py {
        let padding = [(shape[2] - 1) / 2, (shape[3] - 1) / 2];
        let attrs = vec![
            ("in_channels", Py::Int((shape[1] * groups) as i64)),
            ("out_channels", Py::Int(shape[0] as i64)),
            ("kernel_size", ints(&shape[2..])),
            ("stride", ints(&[1, 1])),
            ("padding", ints(&padding)),
            ("dilation", ints(&[1, 1])),
            ("groups", Py::Int(groups as i64)),
        ];
        Self::module(("torch.nn.modules.conv", "Conv2d"), attrs, vec![("weight", kernel)], vec![])
    }

    /// A batch norm; each row is gamma, beta, mean, variance of a channel.
    pub(crate) fn batch_norm(&mut self, rows: &[[f32; 4]]) -> Py {
        let mut column = |idx: usize| {
            let values: Vec<f32> = rows.iter().map(|row| row[idx]).collect();
            self.tensor(&[rows.len()], &values)
        };
        let tensors = vec![
            ("weight", column(0)),
            ("bias", column(1)),
            ("running_mean", column(2)),
            ("running_var", column(3)),
        ];
        Self::module(
            ("torch.nn.modules.batchnorm", "BatchNorm2d"),
            vec![("eps", Py::Float(1e-3))],
            tensors,
            vec![],
        )
    }

    pub(crate) fn act(name: &str) -> Py {
        let file = if name == "Identity" { "torch.nn.modules.linear" } else { "torch.nn.modules.activation" };
        Self::module((file, name), vec![("inplace", Py::Bool(true))], vec![], vec![])
    }

    /// `Conv` of ultralytics: convolution, batch norm, activation.
    pub(crate) fn conv(
        &mut self,
        shape: [usize; 4],
        groups: usize,
        kernel: &[f32],
        bn: &[[f32; 4]],
        act: &str,
    ) -> Py {
        let conv = self.conv2d(shape, groups, kernel, None);
        let bn = self.batch_norm(bn);
        let children = vec![("conv", conv), ("bn", bn), ("act", Self::act(act))];
        Self::module(("ultralytics.nn.modules.conv", "Conv"), vec![], vec![], children)
    }

    /// A detection model of these layers, each with its `f`, and a head without tensors.
    pub(crate) fn model(&mut self, layers: Vec<(Py, Py)>) -> Py {
        let head =
            Self::module(("ultralytics.nn.modules.head", "Detect"), vec![("nc", Py::Int(2))], vec![], vec![]);
        let layers = layers.into_iter().chain([(head, Py::Int(-1))]);
        let layers: Vec<(String, Py)> = layers
            .enumerate()
            .map(|(i, (module, f))| {
                (i.to_string(), with_attrs(module, vec![("i", Py::Int(i as i64)), ("f", f)]))
            })
            .collect();
        let layers = layers.iter().map(|(name, layer)| (name.as_str(), layer.clone())).collect();
        let sequence = Self::module(("torch.nn.modules.container", "Sequential"), vec![], vec![], layers);
        let names = Py::Dict(vec![(Py::Int(1), "dog".into()), (Py::Int(0), "cat".into())]);
        let attrs =
            vec![("names", names), ("stride", self.tensor(&[2], &[8.0, 16.0])), ("task", "detect".into())];
        Self::module(("ultralytics.nn.tasks", "DetectionModel"), attrs, vec![], vec![("model", sequence)])
    }

    /// The archive with `root` as its pickle and the storages made so far.
    pub(crate) fn archive(&self, root: &Py) -> Vec<u8> {
        self.archive_of(&pickle(root))
    }

    /// The same for a pickle that is already written.
    pub(crate) fn archive_of(&self, data: &[u8]) -> Vec<u8> {
        let names: Vec<String> = (0..self.storages.len()).map(|key| format!("x/data/{key}")).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("x/data.pkl", data), ("x/byteorder", b"little")];
        entries.extend(names.iter().map(String::as_str).zip(self.storages.iter().map(Vec::as_slice)));
        zip(ZipStyle::Torch, &entries)
    }

    /// The archive of a checkpoint whose `model` is this one.
    pub(crate) fn checkpoint(&self, model: Py) -> Vec<u8> {
        let args = dict([("imgsz", Py::Int(320))]);
        let root =
            vec![("model", model), ("ema", Py::None), ("train_args", args), ("version", "8.3.0".into())];
        self.archive(&dict(root))
    }
}

/// The module with more attributes.
pub(crate) fn with_attrs(module: Py, attrs: Vec<(&str, Py)>) -> Py {
    match module {
        Py::Object(class, state) => match *state {
            Py::Dict(mut items) => {
                items.extend(attrs.into_iter().map(|(key, value)| (key.into(), value)));
                Py::Object(class, Box::new(Py::Dict(items)))
            }
            other => Py::Object(class, Box::new(other)),
        },
        other => other,
    }
}

/// The module with another tensor under `name`.
pub(crate) fn with_tensor(module: Py, name: &str, tensor: Py) -> Py {
    let Py::Object(class, state) = module else { unreachable!("not a module") };
    let Py::Dict(mut state) = *state else { unreachable!("not a dict") };
    for (key, value) in &mut state {
        if *key == Py::from("_parameters")
            && let Py::Dict(tensors) = value
        {
            tensors.retain(|(key, _)| *key != Py::from(name));
            tensors.push((name.into(), tensor.clone()));
        }
    }
    Py::Object(class, Box::new(Py::Dict(state)))
}

/// Strides of a tensor without gaps.
pub(crate) fn contiguous(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}
