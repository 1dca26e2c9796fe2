//! `tracestate`: what others keep in the trace (W3C Trace Context, section 3.3). Never changed here.

/// Longest `tracestate` that is passed on, in bytes: as long as everybody has to pass one on at least.
pub const TRACESTATE_MAX_BYTES: usize = 512;

/// Most members of its list.
const MEMBERS_MAX: usize = 32;
/// Longest key; of a key with `@`, the part before it has at most 241 and the part behind it 14.
const KEY_MAX_BYTES: usize = 256;
const TENANT_MAX_BYTES: usize = 241;
const SYSTEM_MAX_BYTES: usize = 14;
/// Longest value.
const VALUE_MAX_BYTES: usize = 256;

/// Whether a text is a `tracestate` that may be passed on: at most [`TRACESTATE_MAX_BYTES`], and a list of at most 32 `key=value` by the
/// grammar of the Recommendation, in which no key comes twice. Empty members are allowed there; a list without any other says nothing.
#[must_use]
pub fn is_tracestate(text: &str) -> bool {
    if text.len() > TRACESTATE_MAX_BYTES {
        return false;
    }
    let mut keys = [""; MEMBERS_MAX];
    let mut count = 0;
    for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        if count == MEMBERS_MAX || !is_key(key) || !is_value(value) || keys[..count].contains(&key) {
            return false;
        }
        keys[count] = key;
        count += 1;
    }
    count > 0
}

fn is_key(key: &str) -> bool {
    let is_part = |part: &str, may_begin_with_digit: bool| {
        let begins = part
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || (may_begin_with_digit && first.is_ascii_digit()));
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte);
        begins && part.bytes().all(allowed)
    };
    match key.split_once('@') {
        None => key.len() <= KEY_MAX_BYTES && is_part(key, false),
        Some((tenant, system)) => {
            tenant.len() <= TENANT_MAX_BYTES
                && system.len() <= SYSTEM_MAX_BYTES
                && is_part(tenant, true)
                && is_part(system, false)
        }
    }
}

/// Printable ASCII but for comma and equals sign, not ending in a space.
fn is_value(value: &str) -> bool {
    let allowed = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    (1..=VALUE_MAX_BYTES).contains(&value.len()) && value.bytes().all(allowed) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_by_the_grammar_pass_and_others_do_not() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for good in [
            "congo=t61rcWkgMzE",
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
            "a=1, b=2 ,\tc=3",
            "a=1,,b=2",
            "fw529a3039@dt=FfFf",
            "0tenant@sys=x",
            "a_b-c*d/e=x y!",
            &many(32),
            &format!("a={}", "v".repeat(256)),
        ] {
            assert!(is_tracestate(good), "{good:?}");
        }
        for bad in [
            "",
            " , ",
            "a",
            "a=",
            "=1",
            "A=1",
            "1a=1",
            "a@1b=1",
            "a@=1",
            "a@b@c=1",
            "a =1",
            "a=1=2",
            "a=\u{e9}",
            "a=1,a=2",
            "a=\u{7f}",
            &many(33),
            &format!("a={}", "v".repeat(257)),
            &format!("{}=1", "k".repeat(257)),
            &format!("a={},b={},c=1", "v".repeat(254), "v".repeat(253)),
        ] {
            assert!(!is_tracestate(bad), "{bad:?}");
        }
    }
}
