'use strict'

// Joins a topic as client and server, alone, and then does nothing for some seconds: what does that cost? The network
// is in a process of its own, for Bevy too.

const crypto = require('crypto')
const { load, work, timed, residentMiB, switches, switchesSince, sleep, report } = require('./lib')
const { serving } = require('./tcp')

async function network ({ nodes }) {
  const net = await load('hyperdht/testnet')(nodes)
  console.log(JSON.stringify({ port: net.bootstrap[0].port }))
  process.stdin.resume()
  await new Promise((resolve) => process.stdin.on('close', resolve))
  process.stdout.write(JSON.stringify({ extra: {} }) + '\n', () => process.exit())
}

// counting returns a function that says how many packets the sockets of a DHT have sent and received by then. libudx
// counts those that are sent by streams only, so the others are counted here.
function counting () {
  let sent = 0
  const { prototype } = load('udx-native/lib/socket')
  for (const name of ['send', 'trySend']) {
    const send = prototype[name]
    prototype[name] = function (...args) {
      sent++
      return send.apply(this, args)
    }
  }
  return (dht) => {
    const sockets = [dht.io.clientSocket, dht.io.serverSocket, ...dht._socketPool._sockets.keys()]
    return sockets.reduce((n, s) => n + s.packetsTransmitted + s.packetsReceived, sent)
  }
}

async function idle ({ ports, stop, settle, seconds: pause }) {
  const Hyperswarm = load('hyperswarm')
  const counted = counting()
  const swarm = new Hyperswarm({ bootstrap: [{ host: '127.0.0.1', port: ports[0] }] })
  await swarm.join(crypto.createHash('sha256').update('bench').digest()).flushed()
  await sleep(settle)
  const before = counted(swarm.dht)
  const switched = switches()
  const { seconds, cpuSeconds } = await timed(() => sleep(pause))
  const packets = counted(swarm.dht) - before
  const extra = {
    cpuMsPerMinute: (cpuSeconds * 1000 * 60) / seconds,
    wakeupsPerSecond: switchesSince(switched).switches / seconds,
    rssMiB: residentMiB()
  }
  await swarm.destroy() // while there is somebody to tell
  await stop()
  return { value: (packets * 60) / seconds, extra }
}

const w = work()
if (w.role === 'serve') network(w)
else report('hyperswarm', (w) => serving(w, (net) => idle({ ...w, ...net })))
