use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    net::IpAddr,
};

use serde::de::DeserializeOwned;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    name: String,
    #[serde(default)]
    ports: Vec<u16>,
    labels: Option<BTreeMap<String, Label>>,
    #[serde(default)]
    kind: Kind,
    at: Option<IpAddr>,
    pair: Option<(i8, f32)>,
    sign: Option<char>,
    wide: Option<u128>,
    nothing: Option<()>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Label {
    One(String),
    Many(Vec<String>),
    Flag { on: bool },
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Plain,
    Newtype(Name),
    Pair(u8, i64),
    Fields {
        a: u32,
    },
}

#[derive(Debug, PartialEq, Deserialize)]
struct Name(String);

#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Number { n: i32 },
    Rest(HashMap<String, serde_json::Value>),
}

/// The value or the words of the error, as the format itself would have them.
fn read_both_ways<T: DeserializeOwned + PartialEq + Debug>(text: &str) -> Result<T, String> {
    let directly = serde_json::from_str::<T>(text).map_err(|cause| cause.to_string());
    let erased = serde_json::from_str::<Erased<T>>(text).map(|read| read.0).map_err(|cause| cause.to_string());
    assert_eq!(erased, directly, "{text}");
    directly
}

#[test]
fn every_shape_is_read_as_without() {
    for text in [
        r#"{"name":"a"}"#,
        r#"{"name":"a\nb","ports":[1,65535],"labels":{"x":"y","z":["1","2"],"f":{"on":true}},"kind":"plain"}"#,
        r#"{"name":"a","kind":{"newtype":"n"},"at":"::1","pair":[-128,1.5],"sign":"é","wide":340282366920938463463374607431768211455}"#,
        r#"{"name":"a","kind":{"pair":[1,-2]},"nothing":null,"labels":null}"#,
        r#"{"name":"a","kind":{"fields":{"a":1}}}"#,
    ] {
        read_both_ways::<Host>(text).unwrap();
    }
    read_both_ways::<Tagged>(r#"{"type":"Number","n":1}"#).unwrap();
    read_both_ways::<Tagged>(r#"{"type":"Rest","n":1,"x":[null,{"y":1.5}]}"#).unwrap();
    read_both_ways::<serde_json::Value>(r#"{"a":[1,-1,1.5,true,null,"x",{}]}"#).unwrap();
    assert_eq!(serde_json::from_str::<Erased<&str>>(r#""borrowed""#).unwrap().0, "borrowed");
}

#[test]
fn every_mistake_has_the_words_and_the_place_that_it_has_without() {
    for text in [
        "",
        "{",
        r#"{"name":1}"#,
        r#"{"ports":[]}"#,
        r#"{"name":"a","name":"b"}"#,
        r#"{"name":"a","prots":[]}"#,
        "{\n\"name\":\"a\",\n\"ports\":[1,\n65536]}",
        r#"{"name":"a","ports":{}}"#,
        r#"{"name":"a","ports":[1"#,
        r#"{"name":"a","labels":{"x":5}}"#,
        r#"{"name":"a","kind":"no"}"#,
        r#"{"name":"a","kind":{"pair":[1]}}"#,
        r#"{"name":"a","kind":{"fields":{}}}"#,
        r#"{"name":"a","kind":{"newtype":[]}}"#,
        r#"{"name":"a","at":"nowhere"}"#,
        r#"{"name":"a","pair":[1]}"#,
        r#"{"name":"a","pair":[200,1]}"#,
        r#"{"name":"a","sign":"two"}"#,
        r#"{"name":"a"} x"#,
    ] {
        read_both_ways::<Host>(text).unwrap_err();
    }
    read_both_ways::<Tagged>(r#"{"type":"Other"}"#).unwrap_err();
    read_both_ways::<Tagged>(r#"{"n":1}"#).unwrap_err();
}
