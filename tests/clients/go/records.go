package main

import (
	"bytes"
	"fmt"
	"hash/crc32"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The records that every driver sends for a producer's name and a sequence number.

func keyOf(seq int64) []byte {
	if seq%13 == 5 && seq%17 != 3 {
		return nil
	}
	return fmt.Appendf(nil, "k%d", seq%97)
}

func valueOf(producer string, seq, valueBytes int64) []byte {
	if seq%17 == 3 {
		return nil
	}
	value := fmt.Appendf(nil, "%s|%d|", producer, seq)
	for i := range seq * 37 % valueBytes {
		value = append(value, byte((seq*31+i*7)%256))
	}
	return value
}

func headersOf(producer string, seq int64) []kgo.RecordHeader {
	headers := []kgo.RecordHeader{{Key: "who", Value: fmt.Appendf(nil, "%s|%d", producer, seq)}}
	if seq%5 == 0 {
		headers = append(headers,
			kgo.RecordHeader{Key: "h", Value: []byte{255, 254, byte(1 + seq%255)}},
			kgo.RecordHeader{Key: "n", Value: nil},
			kgo.RecordHeader{Key: "h", Value: []byte{}},
		)
	}
	return headers
}

// sayRecord tells a record that was read: where it lay, who says to have sent it, and a digest of all its bytes.
func sayRecord(r *kgo.Record) {
	digest := crc32.NewIEEE()
	add := func(part []byte) {
		if part == nil {
			digest.Write([]byte("-1|"))
			return
		}
		fmt.Fprintf(digest, "%d|", len(part))
		digest.Write(part)
	}
	add(r.Key)
	add(r.Value)
	var who any
	for _, header := range r.Headers {
		add([]byte(header.Key))
		add(header.Value)
		if header.Key == "who" {
			who = string(header.Value)
		}
	}
	if words := bytes.SplitN(r.Value, []byte("|"), 3); who == nil && len(words) == 3 {
		who = string(words[0]) + "|" + string(words[1])
	}
	say("rec", event{"p": r.Partition, "o": r.Offset, "ts": r.Timestamp.UnixMilli(), "who": who, "d": digest.Sum32()})
}
