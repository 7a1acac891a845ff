// A person from an identity provider with a security key: sets it up on the account page, then touches it for each session that is named on standard input.
// Argument: address of the proxy. A line is a page, the code that the terminal shows there, and words that the page has to show. Prints a line for each touch.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(process.env.REMOTELER_TEST_PAGES + '/');
const { chromium } = require('playwright-core');

const [base] = process.argv.slice(2);
const browser = await chromium.launch({ timeout: 120_000, executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  const devtools = await context.newCDPSession(page);
  await devtools.send('WebAuthn.enable');
  const options = {
    protocol: 'ctap2', transport: 'usb', hasResidentKey: false, hasUserVerification: true, isUserVerified: true,
    automaticPresenceSimulation: true,
  };
  await devtools.send('WebAuthn.addVirtualAuthenticator', { options });

  await page.goto(`${base}/web/account`);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Second factors' }).waitFor();
  await page.getByRole('button', { name: 'Add a security key' }).click();
  await press(page, 'Add a security key', 'Use the security key');
  await page.locator('.codes li').first().waitFor();
  console.log('the key is set up');

  for await (const line of createInterface({ input: process.stdin })) {
    const [url, ...words] = line.split(' ');
    await page.goto(url);
    const shown = await page.textContent('main');
    for (const word of words) assert.ok(shown.includes(word), `${word}: ${shown}`);
    await press(page, 'Begin this session?', 'I am going there');
    await page.getByText('press Enter').waitFor().catch(async (cause) => {
      throw new Error(`${cause.message}\nthe page shows: ${await page.textContent('body')}`);
    });
    console.log(`touched for ${url}`);
  }
} finally {
  await browser.close();
}

/// Clicks what asks the key, once the page's script is there to do it.
async function press(page, heading, button) {
  await page.getByRole('heading', { name: heading }).waitFor();
  await page.waitForLoadState('load');
  await page.getByRole('button', { name: button }).click();
}
