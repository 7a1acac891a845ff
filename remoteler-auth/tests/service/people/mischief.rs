//! What can be done to a request on its way, by somebody else's page, another browser or a broken one. Each makes of the honest request one that must come to nothing.

use http::Method;

use super::browser::Ask;

/// The next number of a run that can be had again (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(sides).unwrap()).unwrap()
    }

    /// Some of these, each once.
    pub(super) fn draw<T: Copy>(&mut self, from: &[T], count: usize) -> Vec<T> {
        let mut left = from.to_vec();
        (0..count.min(left.len())).map(|_| left.swap_remove(self.roll(left.len()))).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mischief {
    NoToken,
    OtherToken,
    TokenTwice,
    UnknownField,
    NoCookie,
    OtherBrowser,
    ManyCookies,
    ForeignOrigin,
    NullOrigin,
    ForeignSite,
    ForgedHost,
    Framed,
    Oversize,
    NoForm,
    Garbage,
    OtherMethod,
    WrongPassword,
    WrongCode,
    OtherAddress,
}

/// Of a form.
pub(super) const WITH_FORMS: &[Mischief] = &[
    Mischief::NoToken,
    Mischief::OtherToken,
    Mischief::TokenTwice,
    Mischief::UnknownField,
    Mischief::NoCookie,
    Mischief::OtherBrowser,
    Mischief::ManyCookies,
    Mischief::ForeignOrigin,
    Mischief::NullOrigin,
    Mischief::ForeignSite,
    Mischief::ForgedHost,
    Mischief::Framed,
    Mischief::Oversize,
    Mischief::NoForm,
    Mischief::Garbage,
    Mischief::OtherMethod,
    Mischief::WrongPassword,
    Mischief::WrongCode,
    Mischief::OtherAddress,
];

/// Of a page that is only looked at.
pub(super) const WITH_PAGES: &[Mischief] =
    &[Mischief::ForgedHost, Mischief::Framed, Mischief::OtherMethod, Mischief::OtherAddress];

impl Mischief {
    /// Done to a request; `None` where there is nothing to do it to. `stranger` is another browser's cookie.
    pub(super) fn done_to(self, honest: &Ask, stranger: &(String, String)) -> Option<Ask> {
        let mut ask = honest.clone();
        let is_token = |name: &str| matches!(name, "csrf" | "token");
        let token = ask.fields.iter().position(|(name, _)| is_token(name));
        match self {
            Self::NoToken => drop(ask.fields.remove(token?)),
            Self::OtherToken => {
                let token = &mut ask.fields[token?].1;
                let last = if token.pop() == Some('0') { '1' } else { '0' };
                token.push(last);
            }
            Self::TokenTwice => ask.fields.push(ask.fields[token?].clone()),
            Self::UnknownField => ask.fields.push(("admin".into(), "true".into())),
            Self::NoCookie => ask.cookies.clear(),
            Self::OtherBrowser => drop(ask.cookies.insert(stranger.0.clone(), stranger.1.clone())),
            // In order of name these come first.
            Self::ManyCookies => ask.cookies.extend((0..100).map(|number| (format!("A{number}"), "x".into()))),
            Self::ForeignOrigin => ask.headers = vec![("origin", "https://evil.example".into())],
            Self::NullOrigin => ask.headers = vec![("origin", "null".into())],
            Self::ForeignSite => ask.headers = vec![("sec-fetch-site", "cross-site".into())],
            Self::ForgedHost => ask.host = "evil.example",
            Self::Framed => ask.headers.push(("sec-fetch-dest", "iframe".into())),
            Self::Oversize => ask.fields.push(("admin".into(), "x".repeat(70 * 1024))),
            Self::NoForm => ask.headers.push(("content-type", "application/json".into())),
            Self::Garbage => ask.body = Some("%ff&=&&csrf=%00&token=%zz".into()),
            Self::OtherMethod => ask.method = Method::PUT,
            Self::WrongPassword => {
                ask.fields.iter_mut().find(|(name, _)| name == "password")?.1.push('!');
            }
            Self::WrongCode => {
                let code = ask.fields.iter_mut().find(|(name, value)| name == "code" && !value.is_empty())?;
                code.1 = "none".into();
            }
            Self::OtherAddress => {
                // Of somebody else's login, link or form: the last part of the path that stands for one.
                let (path, query) = ask.path.split_once('?').unwrap_or((&ask.path, ""));
                let parts = path.split('/').map(|part| match part.len() >= 20 {
                    true => "0".repeat(part.len()),
                    false => part.to_owned(),
                });
                let path = parts.collect::<Vec<_>>().join("/");
                if path == honest.path.split('?').next().unwrap_or_default() {
                    return None;
                }
                ask.path = if query.is_empty() { path } else { format!("{path}?{query}") };
            }
        }
        Some(ask)
    }
}
