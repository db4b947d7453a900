'use strict'

// Puts count files into a new drive, one by one; with a drive that makedrive.js has made, gets all of its files in no order,
// or lists them, twice. The package does not fsync.

const { load, drivePath, putFiles, timed, report } = require('./lib')
const Corestore = load('corestore')
const Hyperdrive = load('hyperdrive')

async function gets (drive, w) {
  for (let i = 0; i < w.gets; i++) {
    const data = await drive.get(drivePath((i * 7919) % w.count))
    if (data.byteLength !== w.block) throw new Error('a file of ' + data.byteLength + ' bytes')
  }
}

async function list (drive, w) {
  let n = 0
  for await (const { key, value } of drive.list('/')) {
    if (value.blob.byteLength !== w.block) throw new Error(key + ' has not ' + w.block + ' bytes')
    n++
  }
  if (n !== w.count) throw new Error(n + ' files')
}

report('hyperdrive', async (w) => {
  const drive = new Hyperdrive(new Corestore(w.dir))
  await drive.ready()
  const rate = ({ seconds }) => w.count / seconds * (w.unit === 'MiB/s' ? w.block / (1 << 20) : 1)
  const extra = {}
  let took
  if (w.logs) {
    const read = w.gets ? gets : list
    extra.firstPerSecond = rate(await timed(() => read(drive, w)))
    took = await timed(() => read(drive, w))
  } else {
    took = await timed(() => putFiles(drive, w))
  }
  await drive.close()
  return { value: rate(took), extra: { ...took, ...extra } }
})
