// node_inproc.js - the loop's own work on Node. setImmediate is its call_soon.
//
//   node node_inproc.js chain|soon|timers|cancel|reset|reset.cancel|switch|tasks|alive
//
// Prints ns=NANOSECONDS, CPU an operation.
// SPDX-License-Identifier: MIT
'use strict';

const MILLION = 1000000, CHAIN = 2000000, TIMEOUTS = 100000, RESETS = 2000000;

// The CPU of the process in ns, the collector's threads included.
function clock() {
  const usage = process.cpuUsage();
  return (usage.user + usage.system) * 1000;
}

// 1 to 1000 ms in no order, the same sequence in each language.
let seed = 1;
function nextDelay() {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  return 1 + ((seed >> 8) % 1000);
}

function ignore() {}

function countdown(n, done) {
  return () => {
    if (--n === 0) done();
  };
}

const bench = {
  async chain() {
    await new Promise((done) => {
      let left = CHAIN;
      const step = () => (--left > 0 ? setImmediate(step) : done());
      setImmediate(step);
    });
    return [CHAIN];
  },
  async soon() {
    await new Promise((done) => {
      const count = countdown(MILLION, done);
      for (let i = 0; i < MILLION; i++) setImmediate(count);
    });
    return [MILLION];
  },
  async timers() {
    await new Promise((done) => {
      const count = countdown(MILLION, done);
      for (let i = 0; i < MILLION; i++) setTimeout(count, nextDelay());
    });
    return [MILLION];
  },
  async cancel() {
    const set = [];
    for (let i = 0; i < MILLION; i++) set.push(setTimeout(ignore, 60000 + nextDelay()));
    for (const timer of set) clearTimeout(timer);
    return [MILLION];
  },
  async reset() {
    const set = [];
    for (let i = 0; i < TIMEOUTS; i++) set.push(setTimeout(ignore, 30000));
    const start = clock();
    for (let i = 0; i < RESETS; i++) set[i % TIMEOUTS].refresh();
    return [RESETS, clock() - start];
  },
  async 'reset.cancel'() {
    const set = [];
    for (let i = 0; i < TIMEOUTS; i++) set.push(setTimeout(ignore, 30000));
    const start = clock();
    for (let i = 0; i < RESETS; i++) {
      const k = i % TIMEOUTS;
      clearTimeout(set[k]);
      set[k] = setTimeout(ignore, 30000);
    }
    return [RESETS, clock() - start];
  },
  async switch() {
    for (let i = 0; i < MILLION; i++) await new Promise((done) => setImmediate(done));
    return [MILLION];
  },
  async tasks() {
    const n = 300000;
    const body = async () => {};
    for (let i = 0; i < n / 1000; i++) {
      for (let k = 0; k < 1000; k++) body();
      await new Promise((done) => setImmediate(done));
    }
    return [n];
  },
  async alive() {
    const n = 500000, set = [];
    const body = async () => { await new Promise((done) => setImmediate(done)); };
    for (let i = 0; i < n; i++) set.push(body());
    for (let i = 0; i < n; i++) await set[i];
    return [n];
  },
};

(async () => {
  const start = clock();
  const [n, own] = await bench[process.argv[2]]();
  const took = own === undefined ? clock() - start : own;
  console.log(`ns=${(took / n).toFixed(2)}`);
  process.exit(0);
})();
