// Reads a QR code off a screen: rows of 0 (dark) and 1 (light) on standard input. Prints what it says; nothing when there is none.
import fs from 'node:fs';
import { createRequire } from 'node:module';

const readQr = createRequire(process.env.REMOTELER_TEST_PAGES + '/')('jsqr');
const rows = fs.readFileSync(0, 'utf8').trim().split('\n');
const scale = 6;
const [width, height] = [rows[0].length * scale, rows.length * scale];
const pixels = new Uint8ClampedArray(width * height * 4).fill(255);
for (let at = 0; at < width * height; at += 1) {
  const [x, y] = [at % width, Math.floor(at / width)];
  if (rows[Math.floor(y / scale)][Math.floor(x / scale)] === '0') {
    pixels.fill(0, at * 4, at * 4 + 3);
  }
}
const found = readQr(pixels, width, height, { inversionAttempts: 'dontInvert' });
process.stdout.write(found ? found.data : '');
