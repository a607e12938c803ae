package io.chronicle.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;

import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.junit.jupiter.api.Test;

/** A NULL stays a NULL, and nothing else changes. */
class KeepNullsTest {

  private static final Schema POINT = SchemaBuilder.struct().name("point").field("x", Schema.FLOAT64_SCHEMA).build();

  private static Schema placeWithDefault() {
    SchemaBuilder builder = SchemaBuilder.struct().name("point").field("x", Schema.FLOAT64_SCHEMA).optional();
    return builder.defaultValue(new Struct(builder).put("x", 1.0)).build();
  }

  private static Schema row() {
    return SchemaBuilder.struct()
        .name("shop.Value")
        .optional()
        .field("id", SchemaBuilder.int32().defaultValue(0).build())
        .field("note", SchemaBuilder.string().optional().defaultValue("none").name("semantic").version(2).doc("d").parameter("k", "v").build())
        .field("tags", SchemaBuilder.array(Schema.STRING_SCHEMA).optional().defaultValue(List.of("a")).build())
        .field("props", SchemaBuilder.map(Schema.STRING_SCHEMA, Schema.STRING_SCHEMA).optional().defaultValue(Map.of("a", "b")).build())
        .field("place", placeWithDefault())
        .build();
  }

  private static Schema envelope(Schema row) {
    return SchemaBuilder.struct()
        .name("shop.Envelope")
        .version(2)
        .field("before", row)
        .field("after", row)
        .field("op", Schema.STRING_SCHEMA)
        .field("snapshot", SchemaBuilder.string().optional().defaultValue("false").build())
        .build();
  }

  private static SourceRecord record(Schema schema, Object value) {
    SourceRecord record = new SourceRecord(Map.of("p", 1), Map.of("o", 2), "topic", 3, Schema.STRING_SCHEMA, "key", schema, value, 5L);
    record.headers().addLong("chronicle.epoch", 4L);
    return record;
  }

  private static Struct after(SourceRecord record) {
    return ((Struct) record.value()).getStruct("after");
  }

  @Test
  void aNullStaysANullWhateverItsType() {
    Schema row = row();
    Schema envelope = envelope(row);
    Struct nulls = new Struct(row).put("id", 1);
    SourceRecord in = record(envelope, new Struct(envelope).put("after", nulls).put("op", "c"));
    assertEquals("none", after(in).get("note")); // the lie, as it is without the transform
    SourceRecord out = new KeepNulls<SourceRecord>().apply(in);
    for (String column : List.of("note", "tags", "props", "place")) {
      assertNull(after(out).get(column), column);
      assertNull(out.valueSchema().field("after").schema().field(column).schema().defaultValue(), column);
    }
    ((Struct) out.value()).validate();
  }

  @Test
  void aValueStaysThatValue() {
    Schema row = row();
    Schema envelope = envelope(row);
    Schema place = row.field("place").schema();
    Struct values = new Struct(row).put("id", 0).put("note", "").put("tags", List.of()).put("props", Map.of()).put("place", new Struct(place).put("x", 2.5));
    SourceRecord out =
        new KeepNulls<SourceRecord>().apply(record(envelope, new Struct(envelope).put("before", values).put("after", values).put("op", "u")));
    for (Struct side : List.of(((Struct) out.value()).getStruct("before"), after(out))) {
      assertEquals(0, side.get("id"));
      assertEquals("", side.get("note"));
      assertEquals(List.of(), side.get("tags"));
      assertEquals(Map.of(), side.get("props"));
      assertEquals(2.5, side.getStruct("place").get("x"));
    }
    ((Struct) out.value()).validate();
  }

  @Test
  void aMissingRowStaysMissing() {
    Schema envelope = envelope(row());
    SourceRecord out = new KeepNulls<SourceRecord>().apply(record(envelope, new Struct(envelope).put("op", "t")));
    assertNull(((Struct) out.value()).get("before"));
    assertNull(((Struct) out.value()).get("after"));
  }

  @Test
  void theRestOfTheRecordPassesAsItCame() {
    Schema envelope = envelope(row());
    SourceRecord in = record(envelope, new Struct(envelope).put("op", "t"));
    SourceRecord out = new KeepNulls<SourceRecord>().apply(in);
    assertEquals(in.headers(), out.headers());
    assertEquals(in.timestamp(), out.timestamp());
    assertEquals(in.key(), out.key());
    assertSame(in.keySchema(), out.keySchema());
    assertEquals(in.kafkaPartition(), out.kafkaPartition());
    assertEquals(in.sourceOffset(), out.sourceOffset());
    assertEquals("false", ((Struct) out.value()).get("snapshot")); // defaults outside of the rows are the envelope's own
  }

  @Test
  void aColumnKeepsItsSemanticTypeNameVersionAndParameters() {
    Schema envelope = envelope(row());
    SourceRecord out = new KeepNulls<SourceRecord>().apply(record(envelope, new Struct(envelope).put("op", "t")));
    Schema note = out.valueSchema().field("after").schema().field("note").schema();
    assertEquals("semantic", note.name());
    assertEquals(2, note.version());
    assertEquals("d", note.doc());
    assertEquals(Map.of("k", "v"), note.parameters());
    assertEquals("shop.Envelope", out.valueSchema().name());
    assertEquals("shop.Value", out.valueSchema().field("after").schema().name());
  }

  @Test
  void whatIsNoEnvelopeIsUntouched() {
    KeepNulls<SourceRecord> transform = new KeepNulls<>();
    SourceRecord tombstone = record(null, null);
    assertSame(tombstone, transform.apply(tombstone));
    Schema plain = SchemaBuilder.struct().field("before", POINT).field("status", Schema.STRING_SCHEMA).build();
    SourceRecord other = record(plain, new Struct(plain).put("before", new Struct(POINT).put("x", 1.0)).put("status", "END"));
    assertSame(other, transform.apply(other));
    Schema text = SchemaBuilder.struct().field("before", Schema.STRING_SCHEMA).field("op", Schema.STRING_SCHEMA).build();
    SourceRecord message = record(text, new Struct(text).put("before", "x").put("op", "m"));
    assertSame(message, transform.apply(message));
  }

  @Test
  void oneTablesSchemaIsMadeOnceAndAChangedTablesAnew() {
    KeepNulls<SourceRecord> transform = new KeepNulls<>();
    Schema first = envelope(row());
    Schema made = transform.apply(record(first, new Struct(first).put("op", "t"))).valueSchema();
    assertSame(made, transform.apply(record(first, new Struct(first).put("op", "t"))).valueSchema());
    Schema second = envelope(SchemaBuilder.struct().optional().field("place", placeWithDefault()).build());
    assertNotSame(made, transform.apply(record(second, new Struct(second).put("op", "t"))).valueSchema());
  }

  @Test
  void moreSchemasThanTheCacheHoldsStillPass() {
    KeepNulls<SourceRecord> transform = new KeepNulls<>();
    for (int i = 0; i <= KeepNulls.CACHE_MAX; i++) {
      Schema schema = envelope(row());
      SourceRecord out = transform.apply(record(schema, new Struct(schema).put("op", "t")));
      assertNull(out.valueSchema().field("after").schema().field("note").schema().defaultValue());
    }
  }
}
