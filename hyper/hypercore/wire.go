package hypercore

import (
	"fmt"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/merkle"
)

// Flags of a data message.
const (
	dataBlock = 1 << iota
	dataHash
	dataSeek
	dataUpgrade
	dataManifest
)

// Limits of a data message that is read.
const (
	maxProofNodes = 1 << 10
	maxSignature  = 1 << 20
)

// AppendData appends the proof as the body of a data message, the answer to a
// request of that number (hypercore lib/messages.js, wire.data).
func (p *Proof) AppendData(b []byte, request uint64) []byte {
	b, _ = p.appendData(b, request, true)
	return b
}

// DataParts is AppendData without a copy of the block: the message is head, which
// begins with b, then the block, if there is one, then tail.
func (p *Proof) DataParts(b []byte, request uint64) (head, block, tail []byte) {
	b, at := p.appendData(b, request, false)
	if p.Block == nil {
		return b, nil, nil
	}
	return b[:at:at], p.Block.Value, b[at:]
}

// appendData also returns where the block is, or belongs.
func (p *Proof) appendData(b []byte, request uint64, whole bool) (_ []byte, at int) {
	var flags uint64
	for i, set := range [...]bool{p.Block != nil, p.Hash != nil, p.Seek != nil, p.Upgrade != nil, p.Manifest != nil} {
		if set {
			flags |= 1 << i
		}
	}
	b = compact.AppendUint(b, flags)
	b = compact.AppendUint(b, request)
	b = compact.AppendUint(b, p.Fork)
	if x := p.Block; x != nil {
		b = compact.AppendUint(b, x.Index)
		b = compact.AppendUint(b, uint64(len(x.Value)))
		if at = len(b); whole {
			b = append(b, x.Value...)
		}
		b = AppendNodes(b, x.Nodes)
	}
	if x := p.Hash; x != nil {
		b = compact.AppendUint(b, x.Index)
		b = AppendNodes(b, x.Nodes)
	}
	if x := p.Seek; x != nil {
		b = compact.AppendUint(b, x.Bytes)
		b = AppendNodes(b, x.Nodes)
	}
	if x := p.Upgrade; x != nil {
		b = compact.AppendUint(b, x.Start)
		b = compact.AppendUint(b, x.Length)
		b = AppendNodes(b, x.Nodes)
		b = AppendNodes(b, x.Additional)
		b = compact.AppendOptionalBuffer(b, x.Signature)
	}
	if p.Manifest != nil {
		b = append(b, p.Manifest.Encode()...)
	}
	return b, at
}

// ReadData reads the body of a data message. The proof's block aliases the
// input.
func ReadData(b []byte) (p *Proof, request uint64, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	request = d.Uint()
	p = &Proof{Proof: merkle.Proof{Fork: d.Uint()}}
	if flags&dataBlock != 0 {
		p.Block = &merkle.BlockProof{Index: d.Uint(), Value: d.Buffer(MaxBlock + EncryptionPadding), Nodes: ReadNodes(&d, maxProofNodes)}
	}
	if flags&dataHash != 0 {
		p.Hash = &merkle.HashProof{Index: d.Uint(), Nodes: ReadNodes(&d, maxProofNodes)}
	}
	if flags&dataSeek != 0 {
		p.Seek = &merkle.SeekProof{Bytes: d.Uint(), Nodes: ReadNodes(&d, maxProofNodes)}
	}
	if flags&dataUpgrade != 0 {
		p.Upgrade = &merkle.UpgradeProof{Start: d.Uint(), Length: d.Uint(), Nodes: ReadNodes(&d, maxProofNodes), Additional: ReadNodes(&d, maxProofNodes), Signature: d.OptionalBuffer(maxSignature)}
	}
	if flags&dataManifest != 0 {
		p.Manifest, _ = ReadManifest(&d)
	}
	if err := d.Err(); err != nil {
		return nil, 0, fmt.Errorf("read data message: %w", err)
	}
	return p, request, nil // more bytes are of a newer version
}
