//! Exclusive canonical XML by examples of the recommendation and its corners.

use crate::saml::{
    c14n::{Choice, canonical},
    tree::{Comments, Element},
};

fn tree(text: &str) -> Element {
    Element::parse(text.as_bytes(), Comments::Skip).unwrap()
}

fn whole(text: &str) -> String {
    String::from_utf8(canonical(&tree(text), &Choice::whole()).unwrap()).unwrap()
}

#[test]
fn attributes_and_declarations_are_sorted_and_said_where_they_are_used() {
    assert_eq!(
        whole(r#"<a:r xmlns:b="urn:b" xmlns:a="urn:a" xmlns="urn:d" z="1" b:y="2" a:y="3" c='4'><x/><b:z/></a:r>"#),
        r#"<a:r xmlns:a="urn:a" xmlns:b="urn:b" c="4" z="1" a:y="3" b:y="2"><x xmlns="urn:d"></x><b:z></b:z></a:r>"#
    );
}

#[test]
fn a_default_namespace_is_taken_back_only_where_there_was_one() {
    assert_eq!(
        whole(r#"<r xmlns="urn:d"><x xmlns=""><y xmlns="urn:d"/></x></r>"#),
        r#"<r xmlns="urn:d"><x xmlns=""><y xmlns="urn:d"></y></x></r>"#
    );
    assert_eq!(whole(r#"<r xmlns=""><x xmlns=""/></r>"#), "<r><x></x></r>");
}

#[test]
fn declarations_are_repeated_in_siblings_and_not_in_what_is_within() {
    assert_eq!(
        whole(r#"<r xmlns:a="urn:a"><a:x><a:y/></a:x><a:x/></r>"#),
        r#"<r><a:x xmlns:a="urn:a"><a:y></a:y></a:x><a:x xmlns:a="urn:a"></a:x></r>"#
    );
    assert_eq!(
        whole(r#"<a:r xmlns:a="urn:1"><a:x xmlns:a="urn:2"><a:y xmlns:a="urn:1"/></a:x></a:r>"#),
        r#"<a:r xmlns:a="urn:1"><a:x xmlns:a="urn:2"><a:y xmlns:a="urn:1"></a:y></a:x></a:r>"#
    );
}

#[test]
fn characters_are_written_in_the_one_way() {
    assert_eq!(
        whole("<?xml version='1.0'?>\n<r a='&#9;&#10;&#13;\t&quot;&apos;&lt;>'>a\r\nb&#13;&gt;&amp;&lt;\"<!-- x --></r >\n".replace("<!-- x -->", "").as_str()),
        "<r a=\"&#x9;&#xA;&#xD; &quot;'&lt;>\">a\nb&#xD;&gt;&amp;&lt;\"</r>"
    );
    assert_eq!(whole("<r><!-- x --><a/><!-- y --></r>"), "<r><a></a></r>");
}

#[test]
fn a_part_declares_what_it_uses_and_what_is_named_as_inclusive() {
    let document = tree(
        r#"<r xmlns="urn:d" xmlns:a="urn:a" xmlns:b="urn:b"><a:x xml:lang="en" t="b:s"><y><skip/>text</y></a:x></r>"#,
    );
    let part = document.elements().next().unwrap();
    let written = |choice: &Choice<'_>| String::from_utf8(canonical(part, choice).unwrap()).unwrap();
    assert_eq!(
        written(&Choice::whole()),
        r#"<a:x xmlns:a="urn:a" t="b:s" xml:lang="en"><y xmlns="urn:d"><skip></skip>text</y></a:x>"#
    );
    assert_eq!(
        written(&Choice::whole().inclusive(vec!["b", "", "nowhere"], vec![&document])),
        r#"<a:x xmlns="urn:d" xmlns:a="urn:a" xmlns:b="urn:b" t="b:s" xml:lang="en"><y><skip></skip>text</y></a:x>"#
    );
    assert_eq!(written(&Choice::whole().without(0)), r#"<a:x xmlns:a="urn:a" t="b:s" xml:lang="en"></a:x>"#);
}
