package io.chronicle.connect;

/**
 * Finds the comments of an SQL statement that say who did it and why, by the lexical rules of MySQL and MariaDB.
 *
 * <p>Kept: sqlcommenter's {@code key='value',…} and Chronicle's own {@code chronicle: {json}}, in any of the three comment
 * forms. Dropped: every other comment (it may hold commented-out SQL with its literals) and optimizer hints. Version comments
 * ({@code /*! …}) are SQL to the server, and lexed as such. A literal or a quoted identifier may contain what looks like a
 * comment, which is why this lexes instead of searching.
 */
final class AttributionComments {

  /** Longer texts are no attribution: they are dropped whole, since a part of one would be invalid. */
  static final int COMMENT_CHARS_MAX = 8192;

  private final String statement;
  private final boolean backslashEscapes;
  private final StringBuilder kept = new StringBuilder();

  private AttributionComments(String statement, boolean backslashEscapes) {
    this.statement = statement;
    this.backslashEscapes = backslashEscapes;
  }

  /**
   * The attribution comments in their order, each in the block form and separated by one space; null when there is none.
   *
   * @param backslashEscapes false when the server runs with {@code NO_BACKSLASH_ESCAPES}
   */
  static String in(String statement, boolean backslashEscapes) {
    return new AttributionComments(statement, backslashEscapes).find();
  }

  private String find() {
    boolean versioned = false;
    int at = 0;
    while (at < statement.length()) {
      char c = statement.charAt(at);
      if (c == '\'' || c == '"' || c == '`') {
        at = afterQuoted(at, c);
      } else if (c == '#' || startsDashComment(at)) {
        int end = endOfLine(at);
        keep(statement.substring(at + (c == '#' ? 1 : 2), end));
        at = end;
      } else if (statement.startsWith("/*!", at) || statement.startsWith("/*M!", at)) {
        versioned = true;
        at += 3;
      } else if (statement.startsWith("/*", at)) {
        int end = statement.indexOf("*/", at + 2);
        if (end < 0) {
          break; // not closed: comment and SQL cannot be told apart from here on
        }
        keep(statement.substring(at + 2, end));
        at = end + 2;
      } else if (versioned && statement.startsWith("*/", at)) {
        versioned = false; // taken as a pair: in "*/*" the second character opens nothing
        at += 2;
      } else {
        at++;
      }
    }
    return kept.isEmpty() ? null : kept.toString();
  }

  /** MySQL's rule: two dashes and then a blank, a control character or the end; "5--3" is arithmetic. */
  private boolean startsDashComment(int at) {
    return statement.startsWith("--", at) && (at + 2 == statement.length() || statement.charAt(at + 2) <= ' ');
  }

  private int endOfLine(int at) {
    int end = statement.indexOf('\n', at);
    return end < 0 ? statement.length() : end;
  }

  /** The position after a literal or identifier; the end of the text when it is not closed. */
  private int afterQuoted(int start, char quote) {
    int at = start + 1;
    while (at < statement.length()) {
      char c = statement.charAt(at);
      if (c == '\\' && quote != '`' && backslashEscapes) {
        at += 2;
      } else if (c != quote) {
        at++;
      } else if (at + 1 < statement.length() && statement.charAt(at + 1) == quote) {
        at += 2; // doubled: a quote inside
      } else {
        return at + 1;
      }
    }
    return statement.length();
  }

  private void keep(String body) {
    String text = body.strip();
    // a line comment may hold the end of a block comment, which would change what the block form means
    if (text.length() <= COMMENT_CHARS_MAX && !text.contains("*/") && (isChronicle(text) || isPairs(text))) {
      kept.append(kept.isEmpty() ? "" : " ").append("/* ").append(text).append(" */");
    }
  }

  private static boolean isChronicle(String text) {
    String mark = "chronicle:";
    return text.startsWith(mark) && text.endsWith("}") && text.substring(mark.length()).stripLeading().startsWith("{");
  }

  /** {@code key='value'} with commas between, and nothing else: "name='x' OR 1=1" is commented-out SQL. */
  private static boolean isPairs(String text) {
    int at = 0;
    while (true) {
      int value = afterKey(text, at);
      int end = value < 0 ? -1 : afterValue(text, value);
      if (end < 0 || end == text.length()) {
        return end >= 0;
      }
      at = afterBlanks(text, end);
      if (at == text.length() || text.charAt(at) != ',') {
        return false;
      }
      at = afterBlanks(text, at + 1);
    }
  }

  /** The position after {@code key='}, or -1. */
  private static int afterKey(String text, int start) {
    int at = start;
    while (at < text.length() && isKeyCharacter(text.charAt(at), at == start)) {
      at++;
    }
    return at > start && text.startsWith("='", at) ? at + 2 : -1;
  }

  private static boolean isKeyCharacter(char c, boolean first) {
    boolean letter = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_';
    return letter || !first && (c >= '0' && c <= '9' || c == '.' || c == '-' || c == '%');
  }

  /** The position after the closing quote, or -1. sqlcommenter writes a quote in a value as {@code \'}. */
  private static int afterValue(String text, int start) {
    int at = start;
    while (at < text.length()) {
      char c = text.charAt(at);
      if (c == '\'') {
        return at + 1;
      }
      if (c < ' ') {
        return -1;
      }
      at += c == '\\' ? 2 : 1;
    }
    return -1;
  }

  private static int afterBlanks(String text, int start) {
    int at = start;
    while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
      at++;
    }
    return at;
  }
}
