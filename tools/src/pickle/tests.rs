//! Tests of the machine: every opcode, every refusal, and laws over arbitrary values.

use std::sync::Arc;

use proptest::prelude::*;

use super::Pickle;
use super::value::{Id, Node};
use crate::error::ErrorKind;
use crate::testing::{Py, dict, global, pickle};

fn parse(bytes: &[u8]) -> crate::Result<Pickle> {
    Pickle::parse(Arc::new(bytes.to_vec()), 0..bytes.len())
}

/// Parses the opcodes after PROTO, with STOP behind them.
fn run(code: &[u8]) -> crate::Result<Pickle> {
    parse(&[b"\x80\x02", code, b"."].concat())
}

fn refusal(code: &[u8]) -> (ErrorKind, String) {
    let error = run(code).unwrap_err();
    (error.kind(), error.to_string())
}

#[track_caller]
fn check_refused(code: &[u8], kind: ErrorKind, place: &str, part: &str) {
    let (got, message) = refusal(code);
    assert_eq!(got, kind, "{message}");
    assert!(message.starts_with(place) && message.contains(part), "{message}");
}

/// The value as it was before pickling, as far as the machine keeps it.
fn read(pickle: &Pickle, id: Id) -> Py {
    let all = |ids: &[Id]| ids.iter().map(|&id| read(pickle, id)).collect::<Vec<_>>();
    match pickle.node(id) {
        Node::None => Py::None,
        Node::Bool(value) => Py::Bool(*value),
        Node::Int(value) => Py::Int(*value),
        Node::BigInt => panic!("not written by the tests"),
        Node::Float(value) => Py::Float(*value),
        Node::Str { .. } => Py::Str(pickle.str(id).unwrap().to_owned()),
        Node::Tuple { .. } => Py::Tuple(all(pickle.sequence(id).unwrap())),
        Node::List(items) => Py::List(all(items.as_slice())),
        Node::Set(items) => Py::Set(all(items.as_slice())),
        Node::Dict { items, .. } => Py::Dict(
            items.as_slice().iter().map(|&(key, value)| (read(pickle, key), read(pickle, value))).collect(),
        ),
        Node::Global(idx) => {
            let (module, name) = pickle.global(*idx);
            global(module, name)
        }
        Node::Storage(id) => Py::Persistent(Box::new(read(pickle, *id))),
        &Node::Object { global: idx, args, state } => {
            let (module, name) = pickle.global(idx);
            let class = Box::new(global(module, name));
            match state {
                Id::NONE => Py::Call(class, all(pickle.sequence(args).unwrap())),
                state => Py::Object(class, Box::new(read(pickle, state))),
            }
        }
    }
}

#[test]
fn every_understood_opcode_builds_its_value() {
    let check = |code: &[u8], want: Py| {
        let got = run(code).unwrap();
        assert_eq!(read(&got, got.root), want, "{}", String::from_utf8_lossy(code));
    };
    check(b"N", Py::None);
    check(b"\x88", Py::Bool(true));
    check(b"\x89", Py::Bool(false));
    check(b"J\xfe\xff\xff\xff", Py::Int(-2));
    check(b"K\xff", Py::Int(255));
    check(b"M\x00\x01", Py::Int(256));
    check(b"\x8a\x00", Py::Int(0));
    check(b"\x8a\x02\x00\x80", Py::Int(-32768));
    check(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", Py::Int(i64::MAX));
    check(b"G\xbf\xe0\0\0\0\0\0\0", Py::Float(-0.5));
    check(b"X\x02\0\0\0ab", "ab".into());
    check(b"\x8c\x02\xc3\xa9", "é".into());
    check(b")", Py::Tuple(vec![]));
    check(b"N\x85", Py::Tuple(vec![Py::None]));
    check(b"NK\x01\x86", Py::Tuple(vec![Py::None, Py::Int(1)]));
    check(b"K\x01K\x02K\x03\x87", Py::Tuple(vec![Py::Int(1), Py::Int(2), Py::Int(3)]));
    check(b"(K\x01K\x02t", Py::Tuple(vec![Py::Int(1), Py::Int(2)]));
    check(b"]K\x01a", Py::List(vec![Py::Int(1)]));
    check(b"](K\x01K\x02e", Py::List(vec![Py::Int(1), Py::Int(2)]));
    check(b"}K\x01Ns", Py::Dict(vec![(Py::Int(1), Py::None)]));
    check(b"}(K\x01NK\x02Nu", Py::Dict(vec![(Py::Int(1), Py::None), (Py::Int(2), Py::None)]));
    check(b"\x8f(K\x01\x90", Py::Set(vec![Py::Int(1)]));
    check(b"\x95\0\0\0\0\0\0\0\0N", Py::None);
    check(b"K\x07q\x05h\x05\x86", Py::Tuple(vec![Py::Int(7), Py::Int(7)]));
    check(b"K\x07r\x03\0\0\0j\x03\0\0\0\x86", Py::Tuple(vec![Py::Int(7), Py::Int(7)]));
    check(
        b"K\x07\x94K\x08\x94h\0h\x01\x86\x87",
        Py::Tuple(vec![Py::Int(7), Py::Int(8), Py::Tuple(vec![Py::Int(7), Py::Int(8)])]),
    );
    check(b"ctorch\nSize\n", global("torch", "Size"));
    check(b"X\x05\0\0\0torchX\x04\0\0\0Size\x93", global("torch", "Size"));
    check(b"ccollections\nOrderedDict\n)R}b", Py::Dict(vec![]));
    check(b"c__builtin__\nset\n](K\x01K\x02e\x85R", Py::Set(vec![Py::Int(1), Py::Int(2)]));
    check(
        b"ctorch.nn.modules.linear\nIdentity\n)\x81}X\x01\0\0\0aNsb",
        Py::Object(
            Box::new(global("torch.nn.modules.linear", "Identity")),
            Box::new(dict([("a", Py::None)])),
        ),
    );
    check(b"ctypes\nSimpleNamespace\n)R}X\x01\0\0\0aNsb", {
        Py::Object(Box::new(global("types", "SimpleNamespace")), Box::new(dict([("a", Py::None)])))
    });
}

#[test]
fn what_no_checkpoint_needs_is_refused_by_name() {
    for (code, name) in [
        (&b"N0"[..], "POP"),
        (b"(1", "POP_MARK"),
        (b"N2", "DUP"),
        (b"F1.0\n", "FLOAT"),
        (b"I1\n", "INT"),
        (b"L1L\n", "LONG"),
        (b"Px\n", "PERSID"),
        (b"S'x'\n", "STRING"),
        (b"T\0\0\0\0", "BINSTRING"),
        (b"U\0", "SHORT_BINSTRING"),
        (b"Vx\n", "UNICODE"),
        (b"(d", "DICT"),
        (b"(l", "LIST"),
        (b"g0\n", "GET"),
        (b"Np0\n", "PUT"),
        (b"(ios\nsystem\n", "INST"),
        (b"(o", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\0", "EXT2"),
        (b"\x84\x01\0\0\0", "EXT4"),
        (b"\x8b\0\0\0\0", "LONG4"),
        (b"B\0\0\0\0", "BINBYTES"),
        (b"C\0", "SHORT_BINBYTES"),
        (b"\x8d\0\0\0\0\0\0\0\0", "BINUNICODE8"),
        (b"\x8e\0\0\0\0\0\0\0\0", "BINBYTES8"),
        (b"(\x91", "FROZENSET"),
        (b"NN}\x92", "NEWOBJ_EX"),
        (b"\x96\0\0\0\0\0\0\0\0", "BYTEARRAY8"),
        (b"\x97", "NEXT_BUFFER"),
        (b"N\x98", "READONLY_BUFFER"),
    ] {
        let (kind, message) = refusal(code);
        assert_eq!(kind, ErrorKind::Refused, "{message}");
        assert!(message.contains(&format!("opcode {name} at byte ")), "{message}");
        assert!(
            super::scan(&[code, b"."].concat()).refused.iter().any(|reason| reason.contains(name)),
            "{name}"
        );
    }
}

#[test]
fn globals_outside_the_list_are_refused_by_name_and_offset() {
    check_refused(b"cos\nsystem\n", ErrorKind::Refused, "opcode GLOBAL at byte 2", "`os system`");
    check_refused(
        b"\x8c\x05posix\x8c\x06system\x93",
        ErrorKind::Refused,
        "opcode STACK_GLOBAL at byte 17",
        "`posix system`",
    );
    check_refused(b"NN\x93", ErrorKind::Refused, "opcode STACK_GLOBAL", "not a string");
    check_refused(b"cmodels.yolo\nModel\n", ErrorKind::Refused, "opcode GLOBAL", "not supported");
}

#[test]
fn only_what_is_meant_to_be_called_is_called() {
    let conv = b"ctorch.nn.modules.conv\nConv2d\n";
    check_refused(&[&conv[..], b")R"].concat(), ErrorKind::Refused, "opcode REDUCE", "Conv2d");
    check_refused(b"ctorch\nHalfStorage\n)R", ErrorKind::Refused, "opcode REDUCE", "HalfStorage");
    check_refused(b"ctorch\nSize\n)\x81", ErrorKind::Refused, "opcode NEWOBJ", "Size");
    check_refused(&[&conv[..], b"N\x85\x81"].concat(), ErrorKind::Refused, "opcode NEWOBJ", "Conv2d");
    check_refused(b"ctorch\nSize\nNR", ErrorKind::Refused, "opcode REDUCE", "not a tuple");
    check_refused(b"ctorch\nSize\n)R)R", ErrorKind::Refused, "opcode REDUCE", "other than an allowed global");
    check_refused(b"X\x02\0\0\0os)R", ErrorKind::Refused, "opcode REDUCE", "other than an allowed global");
    check_refused(b"c__builtin__\nset\nN\x85R", ErrorKind::Refused, "opcode REDUCE", "set of something");
}

#[test]
fn getattr_names_members_of_enumerations_and_nothing_else() {
    let getattr = b"c__builtin__\ngetattr\n";
    let mode = b"ctorchvision.transforms.functional\nInterpolationMode\n";
    assert!(run(&[&getattr[..], mode, b"X\x08\0\0\0BILINEAR\x86R"].concat()).is_ok());
    for args in
        [&b"X\x0b\0\0\0__globals__\x86R"[..], b"X\x03\0\0\0a.b\x86R", b"X\0\0\0\0\x86R", b"\x85R", b"N\x86R"]
    {
        check_refused(&[&getattr[..], mode, args].concat(), ErrorKind::Refused, "opcode REDUCE", "getattr");
    }
    let nested = [&getattr[..], getattr, mode, b"X\x01\0\0\0a\x86RX\x01\0\0\0b\x86R"].concat();
    check_refused(&nested, ErrorKind::Refused, "opcode REDUCE", "getattr");
    let class = [&getattr[..], b"ctorch.nn.modules.conv\nConv2d\nX\x07\0\0\0forward\x86R"].concat();
    check_refused(&class, ErrorKind::Refused, "opcode REDUCE", "getattr");
}

#[test]
fn state_goes_to_objects_once() {
    let object = b"ctorch.nn.modules.linear\nIdentity\n)\x81";
    check_refused(&[&object[..], b"}b}b"].concat(), ErrorKind::Refused, "opcode BUILD", "its second");
    check_refused(&[&object[..], b"Nb"].concat(), ErrorKind::Refused, "opcode BUILD", "not a dict");
    check_refused(b"}}b", ErrorKind::Refused, "opcode BUILD", "other than an object");
    check_refused(b"ctorch\nSize\n}b", ErrorKind::Refused, "opcode BUILD", "other than an object");
}

#[test]
fn persistent_ids_are_storages() {
    let storage = b"(X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\0" as &[u8];
    assert!(run(&[storage, b"0X\x03\0\0\0cpuK\x04tQ"].concat()).is_ok());
    check_refused(b"NQ", ErrorKind::Refused, "opcode BINPERSID", "storage");
    check_refused(b"(NNNNNtQ", ErrorKind::Refused, "opcode BINPERSID", "storage");
    check_refused(
        b"(X\x07\0\0\0storagectorch\nSize\nNNNtQ",
        ErrorKind::Refused,
        "opcode BINPERSID",
        "storage",
    );
}

#[test]
fn a_broken_stack_is_corrupt() {
    for code in [
        &b""[..],
        b"NN",
        b"(",
        b"(N",
        b"t",
        b"N\x86",
        b"(NN\x87t",
        b"a",
        b"Na",
        b"e",
        b"Nu",
        b"b",
        b"Q",
        b"}(Nu",
        b"h\0",
        b"Nq\0j\x01\0\0\0",
    ] {
        let (kind, message) = refusal(code);
        assert_eq!(kind, ErrorKind::Corrupt, "{code:?}: {message}");
        assert!(message.starts_with("opcode "), "{message}");
    }
    check_refused(b"NNa", ErrorKind::Refused, "opcode APPEND", "other than a list");
    check_refused(b"NNNs", ErrorKind::Refused, "opcode SETITEM", "other than a dict");
    check_refused(b"](\x90", ErrorKind::Refused, "opcode ADDITEMS", "other than a list or set");
}

#[test]
fn damaged_text_is_corrupt() {
    check_refused(b"X\x01\0\0\0\xff", ErrorKind::Corrupt, "opcode BINUNICODE at byte 2", "UTF-8");
    check_refused(b"c\xff\nx\n", ErrorKind::Corrupt, "opcode GLOBAL at byte 2", "UTF-8");
    assert!(parse(b"\x80\x02N").unwrap_err().to_string().contains("cut short"));
    assert!(parse(b"\x80\x02N.N").unwrap_err().to_string().contains("1 bytes follow"));
    assert!(parse(b"\x80\x09N.").unwrap_err().to_string().contains("protocol 9"));
    assert!(parse(b"\xffN.").unwrap_err().to_string().contains("0xff is not a pickle opcode"));
}

#[test]
fn bombs_are_stopped() {
    let million = 1 << 20;
    // A memo index out of all proportion.
    check_refused(b"Nr\xff\xff\xff\x7f", ErrorKind::Limit, "opcode LONG_BINPUT at byte 3", "memo index");
    // Marks and tuples that nest.
    check_refused(&[b'('].repeat(million), ErrorKind::Limit, "opcode MARK", "open marks");
    check_refused(
        &[b"N", &[0x85].repeat(million)[..]].concat(),
        ErrorKind::Limit,
        "opcode TUPLE1",
        "nest deeper",
    );
    check_refused(
        &[&[b']'].repeat(1000)[..], &[b'a'].repeat(999)].concat(),
        ErrorKind::Limit,
        "opcode APPEND",
        "nest deeper",
    );
    // Values by the million, from one byte each.
    check_refused(&[b']'].repeat(million), ErrorKind::Limit, "opcode EMPTY_LIST", "memory");
    check_refused(
        &[b"](", &[b'N'].repeat(million)[..], b"e"].concat(),
        ErrorKind::Limit,
        "opcode ",
        "memory",
    );
    // The same list, copied into sets over and over.
    let list = [b"](", &[b'N'].repeat(1000)[..], b"eq\0c__builtin__\nset\nq\x01"].concat();
    let copies = [&list[..], &b"h\x01h\0\x85R".repeat(10_000)].concat();
    check_refused(&copies, ErrorKind::Limit, "opcode REDUCE", "memory");
    // A string that is longer than any name.
    let mut text = b"X\0\0\x20\0".to_vec();
    text.extend(vec![b'a'; 0x20_0000]);
    check_refused(&text, ErrorKind::Limit, "opcode BINUNICODE at byte 2", "string of 2097152 bytes");
    check_refused(
        b"X\xff\xff\xff\xff",
        ErrorKind::Corrupt,
        "opcode BINUNICODE at byte 2",
        "4294967295 bytes",
    );
}

#[test]
fn a_value_may_contain_itself() {
    let pickle = run(b"]q\0h\0a").unwrap();
    let Node::List(items) = pickle.node(pickle.root) else { panic!("a list") };
    assert_eq!(items.as_slice(), [pickle.root]);
}

fn value() -> impl Strategy<Value = Py> {
    let leaf = prop_oneof![
        Just(Py::None),
        any::<bool>().prop_map(Py::Bool),
        any::<i64>().prop_map(Py::Int),
        (0i64..70_000).prop_map(Py::Int),
        any::<i32>().prop_map(|value| Py::Float(value.into())),
        "\\PC{0,12}".prop_map(Py::Str),
        Just(global("torch", "Size")),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        let items = proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items.clone().prop_map(Py::Tuple),
            items.clone().prop_map(Py::List),
            items.clone().prop_map(Py::Set),
            items.prop_map(|items| Py::Call(Box::new(global("torch", "Size")), items)),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Py::Dict),
            proptest::collection::vec(("[a-z]{1,6}", Just(Py::None)), 0..4).prop_map(|items| {
                let state = items.into_iter().map(|(key, value)| (Py::Str(key), value)).collect();
                Py::Object(Box::new(global("torch.nn.modules.conv", "Conv2d")), Box::new(Py::Dict(state)))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_pickled_is_read(value in value()) {
        let bytes = pickle(&value);
        let read_back = parse(&bytes).unwrap();
        prop_assert_eq!(read(&read_back, read_back.root), value);
        prop_assert!(super::scan(&bytes).refused.is_empty());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
        let _ = super::scan(&bytes);
    }

    #[test]
    fn arbitrary_opcodes_never_panic(codes in proptest::collection::vec(proptest::sample::select(
        b"(N\x88)K]}\x8ft\x85\x86\x87aes\x90uq\x94h\x93QR\x81b.".to_vec()), 0..200)) {
        let bytes: Vec<u8> = codes.iter().flat_map(|&code| match code {
            b'K' | b'q' | b'h' => vec![code, 0],
            _ => vec![code],
        }).collect();
        let _ = parse(&bytes);
        let _ = super::scan(&bytes);
    }

    #[test]
    fn what_is_read_is_never_refused_by_the_scan(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if parse(&bytes).is_ok() {
            prop_assert!(super::scan(&bytes).refused.is_empty());
        }
    }
}
