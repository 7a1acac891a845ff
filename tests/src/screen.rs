//! The screen of a terminal, as a telephone's camera sees a QR code on it: half blocks and colours become pixels again, and a reader that is not ours (npm's
//! jsQR) says what they say.

use crate::{Chromium, run_with_input};

/// A terminal, by the colours it has when a program says nothing of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// As most are.
    LightOnDark,
    /// As paper is.
    DarkOnLight,
}

impl Screen {
    /// What the QR code says that stands in what was shown; `None` when there is none that can be read. One in swapped colours cannot.
    ///
    /// # Panics
    /// When there are control sequences in it that set no colour that is known here.
    #[must_use]
    pub fn scan(self, reader: &Chromium, shown: &str) -> Option<String> {
        let ground = self == Self::DarkOnLight;
        let drawn: Vec<_> = shown.lines().filter_map(|line| self.row(line)).collect();
        let width = drawn.first()?.len();
        assert!(drawn.iter().all(|row| row.len() == width), "rows of a picture are of one length:\n{shown}");
        // Around it is the rest of the screen.
        let empty = || std::iter::repeat_n(vec![ground; width + 2 * MARGIN], MARGIN);
        let mut pixels: Vec<Vec<bool>> = empty().collect();
        for row in drawn {
            let half = |of: fn(&(bool, bool)) -> bool| {
                let side = || std::iter::repeat_n(ground, MARGIN);
                side().chain(row.iter().map(of)).chain(side()).collect()
            };
            pixels.extend([half(|cell| cell.0), half(|cell| cell.1)]);
        }
        pixels.extend(empty());
        let text = |row: &Vec<bool>| row.iter().map(|light| if *light { '1' } else { '0' }).chain(['\n']).collect();
        let rows: String = pixels.iter().map(text).collect::<Vec<String>>().concat();
        let read = run_with_input(&mut reader.script("qr.mjs"), rows.as_bytes()).ok().text();
        (!read.is_empty()).then_some(read)
    }

    /// Whether the upper and the lower half of each character is light, in a line of a picture.
    fn row(self, line: &str) -> Option<Vec<(bool, bool)>> {
        let own = if self == Self::DarkOnLight { (false, true) } else { (true, false) };
        let (mut ink, mut ground) = own;
        let (mut cells, mut rest) = (Vec::new(), line.trim_end_matches('\r').chars());
        while let Some(c) = rest.next() {
            match c {
                ' ' => cells.push((ground, ground)),
                '█' => cells.push((ink, ink)),
                '▀' => cells.push((ink, ground)),
                '▄' => cells.push((ground, ink)),
                '\u{1b}' => {
                    let sequence: String = rest.by_ref().take_while(|c| *c != 'm').collect();
                    match sequence.as_str() {
                        "[0" => (ink, ground) = own,
                        "[30;47" => (ink, ground) = (false, true),
                        other => panic!("no colours that are known: {other:?}"),
                    }
                }
                _ => return None,
            }
        }
        (cells.len() >= SMALLEST).then_some(cells)
    }
}

/// Modules of the screen that are seen around a picture.
const MARGIN: usize = 4;
/// Modules of the smallest QR code there is.
const SMALLEST: usize = 21;
