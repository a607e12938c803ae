package io.chronicle.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.junit.jupiter.api.Test;

/** The statement never leaves; everything else of the record does. */
class KeepCommentTest {

  private static final Schema SOURCE =
      SchemaBuilder.struct()
          .name("source")
          .field("file", Schema.STRING_SCHEMA)
          .field("thread", SchemaBuilder.int64().optional().defaultValue(7L).build())
          .field("query", Schema.OPTIONAL_STRING_SCHEMA)
          .build();
  private static final Schema ENVELOPE =
      SchemaBuilder.struct().name("t.Envelope").field("op", Schema.STRING_SCHEMA).field("source", SOURCE).build();

  private static SourceRecord record(String query) {
    Struct source = new Struct(SOURCE).put("file", "binlog.1").put("thread", null).put("query", query);
    Struct envelope = new Struct(ENVELOPE).put("op", "u").put("source", source);
    SourceRecord record = new SourceRecord(Map.of("p", 1), Map.of("o", 2), "topic", 3, null, "key", ENVELOPE, envelope, 5L);
    record.headers().addLong("chronicle.epoch", 4L);
    return record;
  }

  private static SourceRecord apply(SourceRecord record) {
    try (KeepComment<SourceRecord> transform = new KeepComment<>()) {
      transform.configure(Map.of());
      return transform.apply(record);
    }
  }

  @Test
  void theStatementBecomesItsAttribution() {
    SourceRecord out = apply(record("UPDATE t SET ssn = '123-45-6789' /* actor='ann' */"));
    assertEquals("/* actor='ann' */", ((Struct) out.value()).getStruct("source").get("query"));
    assertFalse(out.toString().contains("123-45-6789"));
  }

  @Test
  void aStatementWithoutAttributionBecomesNull() {
    SourceRecord out = apply(record("UPDATE t SET ssn = '123-45-6789'"));
    assertNull(((Struct) out.value()).getStruct("source").get("query"));
    assertFalse(out.toString().contains("123-45-6789"));
  }

  @Test
  void everythingElsePassesAsItCame() {
    SourceRecord in = record("UPDATE t SET a = 1");
    SourceRecord out = apply(in);
    Struct source = ((Struct) out.value()).getStruct("source");
    assertEquals("binlog.1", source.get("file"));
    assertNull(source.getWithoutDefault("thread"));
    assertEquals("u", ((Struct) out.value()).get("op"));
    assertEquals(in.headers(), out.headers());
    assertEquals(in.timestamp(), out.timestamp());
    assertEquals(in.key(), out.key());
    assertEquals(in.kafkaPartition(), out.kafkaPartition());
    assertEquals(in.sourceOffset(), out.sourceOffset());
    assertSame(ENVELOPE, out.valueSchema());
  }

  @Test
  void aRecordWithoutAStatementIsUntouched() {
    SourceRecord none = record(null);
    assertSame(none, apply(none));
    SourceRecord tombstone = new SourceRecord(Map.of(), Map.of(), "topic", 0, null, "key", null, null, 5L);
    assertSame(tombstone, apply(tombstone));
    Schema plain = SchemaBuilder.struct().field("source", Schema.STRING_SCHEMA).build();
    SourceRecord other = new SourceRecord(Map.of(), Map.of(), "topic", 0, null, null, plain, new Struct(plain).put("source", "x"), 5L);
    assertSame(other, apply(other));
  }

  @Test
  void theSettingForBackslashesIsHeeded() {
    try (KeepComment<SourceRecord> transform = new KeepComment<>()) {
      transform.configure(Map.of(KeepComment.NO_BACKSLASH_ESCAPES, "true"));
      SourceRecord out = transform.apply(record("UPDATE t SET a = 'C:\\' /* actor='ann' */"));
      assertEquals("/* actor='ann' */", ((Struct) out.value()).getStruct("source").get("query"));
    }
  }
}
