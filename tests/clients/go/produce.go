package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

var acks = map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}

func produce(o *order) error {
	options := append(o.quick(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(acks[o.Acks]),
		kgo.ProducerBatchCompression(codecs[o.Codec]),
		kgo.ProducerLinger(time.Duration(o.LingerMs)*time.Millisecond),
		// No RecordDeliveryTimeout: it counts from the record's timestamp, and ours lie in the past.
		kgo.ProduceRequestTimeout(10*time.Second),
		kgo.UnknownTopicRetries(100),
	)
	if !o.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	begun := time.Now()
	for seq := range o.Count {
		record := &kgo.Record{
			Topic:     o.Topic,
			Partition: int32(seq % int64(o.Partitions)),
			Key:       keyOf(seq),
			Value:     valueOf(o.Producer, seq, o.ValueBytes),
			Headers:   headersOf(o.Producer, seq),
			Timestamp: time.UnixMilli(o.TimestampMs + seq),
		}
		client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			if err != nil {
				say("fail", event{"s": seq, "e": err.Error()})
				return
			}
			offset := r.Offset
			if o.Acks == "0" {
				offset = -1
			}
			say("ack", event{"s": seq, "p": r.Partition, "o": offset})
		})
		if o.PerSecond > 0 {
			time.Sleep(time.Until(begun.Add(time.Duration(seq+1) * time.Second / time.Duration(o.PerSecond))))
		}
	}
	return client.Flush(context.Background())
}
