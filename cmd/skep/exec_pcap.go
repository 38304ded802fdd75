package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// A capturedPacket is a packet of a capture file.
type capturedPacket struct {
	seconds, fraction uint32
	data              []byte
}

// The formats of a capture file's first word: times in micro- and nanoseconds.
const (
	pcapMicro = 0xa1b2c3d4
	pcapNano  = 0xa1b23c4d
	// pcapNG begins the newer format, which is a different one altogether.
	pcapNG       = 0x0a0d0d0a
	linkEthernet = 1
	// mostCaptured bounds what a damaged file can ask for.
	mostCaptured = 1 << 20
)

// readPcap reads the packets of a capture file in the format of libpcap.
func readPcap(name string) ([]capturedPacket, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("%s is no capture: it has no header", name)
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch magic := order.Uint32(head[:]); magic {
	case pcapMicro, pcapNano:
	case pcapNG:
		return nil, fmt.Errorf("%s is a capture in the pcapng format: convert it with tcpdump -r %s -w FILE", name, name)
	default:
		order = binary.BigEndian
		if magic := order.Uint32(head[:]); magic != pcapMicro && magic != pcapNano {
			return nil, fmt.Errorf("%s is no capture: it begins with %x", name, head[:4])
		}
	}
	if link := order.Uint32(head[20:]) & 0xffff; link != linkEthernet {
		return nil, fmt.Errorf("%s has packets of link type %d, and only Ethernet (1) is understood", name, link)
	}
	var list []capturedPacket
	for {
		var h [16]byte
		if _, err := io.ReadFull(r, h[:]); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s ends within the header of packet %d", name, len(list)+1)
		}
		n := order.Uint32(h[8:])
		if n > mostCaptured {
			return nil, fmt.Errorf("%s: packet %d has %d bytes", name, len(list)+1, n)
		}
		p := capturedPacket{seconds: order.Uint32(h[:]), fraction: order.Uint32(h[4:]), data: make([]byte, n)}
		if _, err := io.ReadFull(r, p.data); err != nil {
			return nil, fmt.Errorf("%s ends within packet %d", name, len(list)+1)
		}
		list = append(list, p)
	}
}

// writePcap writes packets to a capture file.
func writePcap(name string, packets []capturedPacket) error {
	b := binary.LittleEndian.AppendUint32(nil, pcapMicro)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, mostCaptured)
	b = binary.LittleEndian.AppendUint32(b, linkEthernet)
	for _, p := range packets {
		for _, n := range []uint32{p.seconds, p.fraction, uint32(len(p.data)), uint32(len(p.data))} {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		b = append(b, p.data...)
	}
	return os.WriteFile(name, b, 0o644)
}
