// A page that is a peer of the swarm by a door of "bevy hyper dht relay --ws": it listens and echoes, and it says hello
// to another peer. Keys and handshakes stay in the page, as custodial is false. The query of its address has the door, the
// seed of the page's key and the key of the peer; what happens is posted to the server that the page is from.

import DHT from '@hyperswarm/dht-relay'
import Stream from '@hyperswarm/dht-relay/ws'
import b4a from 'b4a'

const query = new URLSearchParams(location.search)
const tell = (event, text) => fetch('/' + event, { method: 'POST', body: text })
addEventListener('error', (e) => tell('failed', e.error?.stack ?? e.message))
addEventListener('unhandledrejection', (e) => tell('failed', e.reason?.stack ?? String(e.reason)))

const keyPair = DHT.keyPair(b4a.from(query.get('seed'), 'hex'))
const door = new Stream(true, new WebSocket(query.get('door')))
door.on('error', (err) => tell('failed', err.stack))
const dht = new DHT(door, { keyPair, custodial: false })

const server = dht.createServer((visitor) => {
  visitor.on('error', (err) => tell('left', err.message))
  visitor.on('data', (data) => visitor.write(data))
  visitor.on('end', () => visitor.end())
})

const peer = dht.connect(b4a.from(query.get('peer'), 'hex'))
peer.on('error', (err) => tell('failed', err.stack))
peer.on('data', (data) => tell('heard', b4a.toString(data)))
peer.write(b4a.from('hello from the page'))

server.listen().then(() => tell('listening', b4a.toString(server.publicKey, 'hex')))
