// Drives a real browser over the pages: each in light, dark and phone width, checked for accessibility and drawn; then the flows and the attacks.
// Arguments: address of the proxy, directory of the gallery, directory for pictures, a JSON object with links and the service's time.
// Prints one line for each thing that was shown; whatever is wrong ends it with an error.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');
const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

const [base, gallery, pictures, given] = process.argv.slice(2);
const links = JSON.parse(given);
const looks = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1280, height: 860 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1280, height: 860 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
];
const policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

fs.mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  await inEachLook();
  await signUpWithTheKeyboard();
  await logInAndConfirm();
  await framesStayEmpty();
  await formsOfOtherSitesAreRefused();
} finally {
  await browser.close();
}

/// A context whose page fails the run when the browser complains about anything.
async function open(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (line) => line.type() === 'error' && complaints.push(line.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  return { context, page, complaints };
}

async function check(page, name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  const found = violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => `${node.html} ${node.failureSummary}`).join('; ')}`);
  assert.deepEqual(found, [], `${name}: axe`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, `${name} is wider than the window`);
  const small = await page.evaluate(() => [...document.querySelectorAll('button, .button, input:not([type=hidden]), select')]
    .map((element) => element.getBoundingClientRect().height).filter((height) => height > 0 && height < 36));
  assert.deepEqual(small, [], `${name} has targets that are hard to hit`);
}

async function draw(page, name) {
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

async function inEachLook() {
  for (const { name: look, ...options } of looks) {
    const { context, page, complaints } = await open(options);
    // Pages of flows that need somebody else: as they are rendered, under the policy they have.
    await context.route(`${base}/gallery/*`, (route) => route.fulfill({
      contentType: 'text/html; charset=utf-8',
      headers: { 'content-security-policy': policy },
      // Pages that lead on to tsh or to a provider by themselves have to stay, to be looked at.
      body: fs.readFileSync(path.join(gallery, path.basename(new URL(route.request().url()).pathname)), 'utf8')
        .replace(/<meta http-equiv="refresh"[^>]*>/, '').replace('<script src="/web/submit.js" defer></script>', ''),
    }));
    const shown = fs.readdirSync(gallery).map((file) => [path.basename(file, '.html'), `${base}/gallery/${file}`]);
    shown.push(['live-invite', links.shown]);
    for (const [name, url] of shown) {
      await page.goto(url);
      await check(page, `${name} in ${look}`);
      await draw(page, `${name}-${look}`);
    }
    await page.goto(`${base}/web/invite/none`);
    assert.match(await page.textContent('main'), /used or has expired/);
    assert.deepEqual(complaints.filter((line) => !/status of 404/.test(line)), []);
    console.log(`looked at ${shown.length + 1} pages in ${look}`);
    await context.close();
  }
}

/// As somebody does who sees nothing and has no mouse: the focus is where it must be, and order and names are right.
async function signUpWithTheKeyboard() {
  const { context, page, complaints } = await open();
  await page.goto(links.used);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'password');
  await page.keyboard.type('correct horse battery');
  await page.keyboard.press('Tab');
  await page.keyboard.type('another horse battery');
  await page.keyboard.press('Enter');
  assert.match(await page.getByRole('alert').textContent(), /not the same/);
  const secret = (await page.locator('code').textContent()).replaceAll(' ', '');
  await page.keyboard.type('correct horse battery');
  await page.keyboard.press('Tab');
  await page.keyboard.type('correct horse battery');
  links.secret = secret;
  await page.getByLabel('Six digits from the app').fill(totp(secret, links.now));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Your account is ready' }).waitFor();
  assert.equal(await page.locator('.codes li').count(), 8);
  assert.match(await page.textContent('main'), /tsh login --proxy=localhost:\d+ --user=ann/);
  assert.deepEqual(complaints.filter((line) => !/status of 400/.test(line)), []);
  const kept = await context.cookies();
  assert.ok(kept.every((cookie) => cookie.name.startsWith('__Host-') && cookie.secure && cookie.httpOnly)); // I50
  await context.close();
  console.log('an account was set up with the keyboard alone');
}

/// Ann, who has just signed up, logs tsh in: password and code, then the code of the terminal.
async function logInAndConfirm() {
  const { context, page, complaints } = await open();
  await page.goto(links.login);
  await check(page, 'live-login');
  await page.keyboard.type('ann');
  await page.keyboard.press('Tab');
  await page.keyboard.type('wrong horse battery');
  await page.keyboard.press('Enter');
  assert.match(await page.getByRole('alert').textContent(), /Wrong user name or password\./);
  assert.equal(await page.getByLabel('User name').inputValue(), 'ann');
  await page.getByLabel('Password').fill('correct horse battery');
  await page.getByLabel('One-time code').fill(totp(links.secret, links.now + 30));
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Is this you?' }).waitFor();
  await check(page, 'live-confirm');
  await draw(page, 'live-confirm-light');
  assert.ok((await page.textContent('main')).includes(links.code)); // I41
  await page.getByRole('button', { name: 'log in' }).click();
  await page.getByRole('heading', { name: 'You are logged in' }).waitFor();
  assert.deepEqual(complaints.filter((line) => !/status of 400/.test(line)), []);
  const [kept] = (await context.cookies()).filter((cookie) => cookie.name.startsWith('__Host-'));
  assert.ok(kept.secure && kept.httpOnly && kept.sameSite === 'Lax'); // I50
  await context.close();
  console.log('tsh was logged in by password and code');
}

async function evil(html) {
  const opened = await open();
  await opened.context.route('https://evil.example/**', (route) => route.fulfill({ contentType: 'text/html', body: html }));
  await opened.page.goto('https://evil.example/');
  return opened;
}

async function framesStayEmpty() {
  const { context, page } = await evil(`<iframe src="${links.shown}"></iframe>`);
  await page.locator('iframe').waitFor();
  const frame = await (await page.locator('iframe').elementHandle()).contentFrame();
  await frame.waitForLoadState();
  assert.equal(await frame.locator('form').count(), 0, 'a page of ours is shown in a frame of others'); // I54
  await context.close();
  console.log('no other site frames a page');
}

async function formsOfOtherSitesAreRefused() {
  const fields = '<input name="csrf" value="x"><input name="password" value="evil horse battery"><input name="again" value="evil horse battery">';
  const { context, page } = await evil(`<form method="post" action="${links.shown}">${fields}<button>go</button></form>`);
  // The browser has our cookie, as a victim's has.
  const own = await context.newPage();
  await own.goto(links.shown);
  const [answer] = await Promise.all([page.waitForNavigation(), page.click('button')]);
  assert.equal(answer.status(), 403); // I52
  assert.match(await page.textContent('main'), /another site/);
  await context.close();
  console.log('no form of another site is taken');
}

function totp(secret, now) {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const bits = [...secret].map((letter) => letters.indexOf(letter).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((octet) => parseInt(octet, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(now / 30)));
  const tag = createHmac('sha1', key).update(step).digest();
  const word = tag.readUInt32BE(tag[19] & 15) & 0x7fffffff;
  return String(word % 1000000).padStart(6, '0');
}
