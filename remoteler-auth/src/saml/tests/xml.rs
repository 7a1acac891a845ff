//! What the parser refuses: everything that another one might read in another way.

use crate::saml::{
    fuzz_xml,
    tree::{Comments, Element, XmlError},
};

fn read(text: &str) -> Result<Element, XmlError> {
    Element::parse(text.as_bytes(), Comments::Refuse)
}

// I45
#[test]
fn documents_that_are_not_well_formed_are_refused() {
    for bad in [
        "",
        " ",
        "x",
        "<a>",
        "<a></b>",
        "</a>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a/>&#32;",
        "<a/>&amp;",
        "<a b='1' b='2'/>",
        "<a b='1'c='2'/>",
        "<a b=1/>",
        "<a b/>",
        "<a b='<'/>",
        "<a b='&'/>",
        "<a b='\u{1}'/>",
        "<a>\u{0}</a>",
        "<a>&#0;</a>",
        "<a>&#1;</a>",
        "<a>&#xD800;</a>",
        "<a>&#+65;</a>",
        "<a>&#x110000;</a>",
        "<a>& b</a>",
        "<a>]]></a>",
        "<a>\u{fffe}</a>",
        "<1a/>",
        "<a:b/>",
        "<a b:c='1'/>",
        "<:a/>",
        "<a:/>",
        "<a:b:c xmlns:a='urn:a'/>",
        "<a xmlns:b=''/>",
        "<a xmlns:b='urn:b' xmlns:c='urn:b' b:x='1' c:x='2'/>",
        "<?xml version='1.0' encodin ='UTF-8'?><a/>",
        "<?xml encoding='UTF-8' version='1.0'?><a/>",
        "<?xml version='1.0' encoding='UTF-8' encoding='UTF-7'?><a/>",
        "<?xml version='1.0'encoding='UTF-8'?><a/>",
        "<?xml version='1.0' standalone='maybe'?><a/>",
        "<?xml version='1.0' x='y'?><a/>",
        "<?xml version='1.0' encoding?><a/>",
        "<?xml?><a/>",
        "< a/>",
        "<a / >",
        "<a><?xml version='1.0'?></a>",
        " <?xml version='1.0'?><a/>",
        "<é/>",
    ] {
        assert!(matches!(read(bad), Err(XmlError::Malformed(_))), "{bad:?}: {:?}", read(bad));
    }
    assert!(matches!(Element::parse(b"<a>\xff</a>", Comments::Refuse), Err(XmlError::Malformed(_))));
}

// I45
#[test]
fn what_two_readers_may_read_in_two_ways_is_refused() {
    for bad in [
        "<a xmlns='relative'/>",
        "<a xmlns:xml='http://www.w3.org/XML/1998/namespace'/>",
        "<a xmlns:b='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:xmlns='urn:x'/>",
        "<a xmlns='http://www.w3.org/XML/1998/namespace'/>",
        "<a ID='x'><b Id='x'/></a>",
        "<a id='x'><b xml:id='x'/></a>",
        "<a>&b;</a>",
        "<a>&;</a>",
        "<a><![CDATA[x]]></a>",
        "<a>x<!-- y --></a>",
        "<?xml version='1.0' encoding='latin1'?><a/>",
        "<!DOCTYPE a><a/>",
        "<?x y?><a/>",
    ] {
        assert!(matches!(read(bad), Err(XmlError::Refused(_))), "{bad:?}: {:?}", read(bad));
    }
    let beside = Element::parse(b"<a>x<!-- y --></a>", Comments::Skip);
    assert_eq!(beside, Err(XmlError::Refused("a comment")));
}

#[test]
fn good_documents_are_read() {
    for good in [
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\" standalone=\"yes\"?>\r\n<a/>\n",
        "<a  b = '1'\n\tc=\"2\" ></a >",
        "<a xmlns:b='urn:b' b:x='1' x='2'><b:c/></a>",
        "<a>&#x10FFFF;&lt;\u{fffd}</a>",
        "<_a-1.b/>",
    ] {
        assert!(read(good).is_ok(), "{good:?}: {:?}", read(good));
        fuzz_xml(good.as_bytes());
    }
    assert_eq!(read("<a>\n x &amp; y\t</a>").unwrap().text(), Some("x & y"));
}
