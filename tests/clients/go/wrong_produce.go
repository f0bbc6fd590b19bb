package main

import (
	"encoding/binary"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func (i *inquiry) produce(version int16, acks int16, partition int32, records []byte) (int16, error) {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks, r.TimeoutMillis = version, acks, 10_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = i.topic, i.topicID
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := i.ask(r)
	if err != nil {
		return 0, err
	}
	return answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, nil
}

// spoiled produces two records after something was done to their batch.
func spoiled(change func(*kmsg.RecordBatch)) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) { return i.produce(11, -1, 0, batch(2, change)) }
}

func untouched(*kmsg.RecordBatch) {}

// by produces a batch of a producer id to partition 1, where the questions about sequences are asked in order.
func by(id int64, epoch int16, sequence, count int32) func(*inquiry) (int16, error) {
	return func(i *inquiry) (int16, error) {
		return i.produce(11, -1, 1, batch(count, func(b *kmsg.RecordBatch) {
			b.ProducerID, b.ProducerEpoch, b.FirstSequence = id, epoch, sequence
		}))
	}
}

const ownProducer = 700_001

var produceQuestions = []question{
	{"produce-good", func(i *inquiry) (int16, error) { return i.produce(11, -1, 0, batch(2, untouched)) }},
	{"produce-by-topic-id", func(i *inquiry) (int16, error) { return i.produce(13, -1, 0, batch(2, untouched)) }},
	{"produce-unknown-topic-id", func(i *inquiry) (int16, error) {
		other := *i
		other.topicID = [16]byte{1, 2}
		return other.produce(13, -1, 0, batch(2, untouched))
	}},
	{"produce-unknown-topic", func(i *inquiry) (int16, error) {
		other := *i
		other.topic = i.mark + "-none"
		return other.produce(11, -1, 0, batch(2, untouched))
	}},
	{"produce-unknown-partition", func(i *inquiry) (int16, error) { return i.produce(11, -1, 99, batch(2, untouched)) }},
	{"produce-acks-five", func(i *inquiry) (int16, error) { return i.produce(11, 5, 0, batch(2, untouched)) }},
	{"produce-no-batch", func(i *inquiry) (int16, error) { return i.produce(11, -1, 0, []byte{}) }},
	{"produce-two-batches", func(i *inquiry) (int16, error) {
		return i.produce(11, -1, 0, append(batch(1, untouched), batch(1, untouched)...))
	}},
	{"produce-wrong-crc", func(i *inquiry) (int16, error) {
		raw := batch(2, untouched)
		raw[20] ^= 1
		return i.produce(11, -1, 0, raw)
	}},
	{"produce-flipped-bit", func(i *inquiry) (int16, error) {
		raw := batch(2, untouched)
		raw[len(raw)-1] ^= 1
		return i.produce(11, -1, 0, raw)
	}},
	{"produce-truncated", func(i *inquiry) (int16, error) {
		raw := batch(2, untouched)
		return i.produce(11, -1, 0, raw[:len(raw)-3])
	}},
	{"produce-length-too-large", func(i *inquiry) (int16, error) {
		raw := batch(2, untouched)
		binary.BigEndian.PutUint32(raw[8:], 1_000_000)
		return i.produce(11, -1, 0, raw)
	}},
	{"produce-length-too-small", func(i *inquiry) (int16, error) {
		raw := batch(2, untouched)
		binary.BigEndian.PutUint32(raw[8:], 10)
		return i.produce(11, -1, 0, raw)
	}},
	{"produce-magic-1", spoiled(func(b *kmsg.RecordBatch) { b.Magic = 1 })},
	{"produce-magic-3", spoiled(func(b *kmsg.RecordBatch) { b.Magic = 3 })},
	{"produce-count-too-large", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords = 7 })},
	{"produce-count-and-delta-too-large", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 7, 6 })},
	{"produce-count-too-small", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 1, 0 })},
	{"produce-count-zero", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords = 0 })},
	{"produce-count-negative", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords = -1 })},
	{"produce-count-a-billion", spoiled(func(b *kmsg.RecordBatch) { b.NumRecords, b.LastOffsetDelta = 1_000_000_000, 999_999_999 })},
	{"produce-last-delta-wrong", spoiled(func(b *kmsg.RecordBatch) { b.LastOffsetDelta = 5 })},
	{"produce-control", spoiled(func(b *kmsg.RecordBatch) { b.Attributes |= 1 << 5 })},
	{"produce-log-append-time", spoiled(func(b *kmsg.RecordBatch) { b.Attributes |= 1 << 3 })},
	{"produce-unknown-codec", spoiled(func(b *kmsg.RecordBatch) { b.Attributes |= 7 })},
	{"produce-codec-without-its-bytes", spoiled(func(b *kmsg.RecordBatch) { b.Attributes |= 1 })},
	{"produce-a-day-ahead", spoiled(func(b *kmsg.RecordBatch) {
		b.FirstTimestamp = time.Now().Add(24 * time.Hour).UnixMilli()
		b.MaxTimestamp = b.FirstTimestamp
	})},
	{"produce-max-timestamp-wrong", spoiled(func(b *kmsg.RecordBatch) { b.MaxTimestamp += 12345 })},
	{"produce-id-without-sequence", spoiled(func(b *kmsg.RecordBatch) { b.ProducerID, b.ProducerEpoch = ownProducer, 0 })},
	{"produce-garbage-records", spoiled(func(b *kmsg.RecordBatch) {
		for n := range b.Records {
			b.Records[n] = 0xff
		}
	})},
	{"produce-bytes-behind-the-records", spoiled(func(b *kmsg.RecordBatch) { b.Records = append(b.Records, 1, 2, 3) })},
	{"produce-too-large", func(i *inquiry) (int16, error) {
		return i.produce(11, -1, 0, batch(1, func(b *kmsg.RecordBatch) {
			r := kmsg.Record{Value: make([]byte, 1_200_000)}
			r.Length = int32(len(r.AppendTo(nil)) - 1)
			b.Records = r.AppendTo(nil)
		}))
	}},
	{"produce-zstd-in-version-6", func(i *inquiry) (int16, error) {
		return i.produce(6, -1, 0, batch(2, func(b *kmsg.RecordBatch) { b.Attributes |= 4 }))
	}},
	{"produce-version-2", func(i *inquiry) (int16, error) { return i.produce(2, -1, 0, batch(2, untouched)) }},
	{"sequence-first", by(ownProducer, 1, 0, 3)},
	{"sequence-duplicate", by(ownProducer, 1, 0, 3)},
	{"sequence-next", by(ownProducer, 1, 3, 2)},
	{"sequence-gap", by(ownProducer, 1, 9, 2)},
	{"sequence-overlap", by(ownProducer, 1, 4, 3)},
	{"sequence-older-duplicate", by(ownProducer, 1, 0, 3)},
	{"sequence-older-epoch", by(ownProducer, 0, 5, 1)},
	{"sequence-newer-epoch-not-from-zero", by(ownProducer, 2, 7, 1)},
	{"sequence-newer-epoch", by(ownProducer, 2, 0, 1)},
	{"sequence-unknown-producer-not-from-zero", by(ownProducer+1, 0, 5, 1)},
	{"sequence-negative-epoch", by(ownProducer+2, -5, 0, 1)},
}
