'use strict'

// Opens every log of a store and then does nothing for some seconds: what does that cost?

const { load, timed, residentMiB, fileHandles, switches, switchesSince, sleep, report } = require('./lib')
const Corestore = load('corestore')

report('corestore', async (w) => {
  const store = new Corestore(w.dir)
  await store.ready()
  const cores = []
  for (let i = 0; i < w.logs; i++) {
    const core = store.get({ name: 'log-' + i })
    await core.ready()
    cores.push(core)
  }
  await sleep(w.settle)
  const before = switches()
  const { seconds, cpuSeconds } = await timed(() => sleep(w.seconds))
  const since = switchesSince(before)
  const extra = {
    cpuSeconds,
    cpuPercent: (100 * cpuSeconds) / seconds,
    threads: since.threads,
    rssMiB: residentMiB(),
    fileHandles: fileHandles()
  }
  for (const core of cores) await core.close()
  await store.close()
  return { value: since.switches / seconds, extra }
})
