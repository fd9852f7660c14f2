//! Instruction sets, known from detection only.

use std::fmt;

/// An instruction set that this CPU was seen to support.
///
/// The value is opaque and can be had from detection only, so holding one proves that the CPU has the feature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(pub(crate) Kind);

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

impl Isa {
    /// The fastest instruction set of this CPU.
    pub fn best() -> Isa {
        Isa::available()[0]
    }

    /// All instruction sets of this CPU, the best first, the scalar one last.
    pub fn available() -> Vec<Isa> {
        let mut kinds = Vec::with_capacity(3);
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && avx2 {
                kinds.push(Isa(Kind::Avx512));
            }
            if avx2 {
                kinds.push(Isa(Kind::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kinds.push(Isa(Kind::Neon));
        }
        kinds.push(Isa(Kind::Scalar));
        kinds
    }

    /// Plain code without any feature beyond the target's own.
    pub fn scalar() -> Isa {
        Isa(Kind::Scalar)
    }

    /// `avx512`, `avx2`, `neon` or `scalar`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            Kind::Scalar => "scalar",
        }
    }

    /// The instruction set of this [`name`](Isa::name), if this CPU has it.
    pub fn by_name(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_last_and_best_is_first() {
        let all = Isa::available();
        assert_eq!(all.last(), Some(&Isa::scalar()));
        assert_eq!(all[0], Isa::best());
    }

    #[test]
    fn names_find_their_instruction_sets() {
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::by_name("mmx"), None);
    }
}
