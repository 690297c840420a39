"""The paragraphs of `corpus.english` in three more languages, translated for this course, one for one."""

GERMAN = """\
Ein Computer kann keine Buchstaben lesen. Er kennt nur Zahlen. Damit eine Maschine einen Satz lesen
kann, müssen wir den Satz zuerst in kleine Stücke schneiden und dann jedem Stück eine Nummer geben.
Ein solches Stück heißt Token. In diesem Kurs schreibst du das Programm, das Text zerschneidet, mit
deinen eigenen Händen, ohne fertige Bibliothek, und du wirst verstehen, warum jede Zeile da sein muss.

Die Idee ist sehr einfach. Am Anfang ist jedes Byte ein Token. Dann zählen wir, welche zwei Token am
häufigsten nebeneinander stehen, und fügen sie zu einem neuen Token zusammen. Das wiederholen wir ein
paar hundert Mal oder ein paar tausend Mal. Wörter, die oft vorkommen, werden nach und nach zu einem
einzigen Token, während seltene Wörter weiterhin aus mehreren Stücken zusammengesetzt werden. Kein
Wort bleibt zurück, denn im schlimmsten Fall haben wir immer noch die Bytes.

Das Vietnamesische hat viele Akzente. Ein Buchstabe wie e mit zwei Akzenten trägt sowohl einen
Zirkumflex als auch einen Akut, und im Speicher belegt er drei Byte. Wenn ein Vokabular nur aus dem
Englischen gelernt hat, dann hat es diese drei Byte nie zusammen gesehen und muss drei Token für
einen Buchstaben ausgeben. Für denselben Inhalt muss jemand, der Vietnamesisch schreibt, mehr Token
bezahlen, länger warten, und er bekommt ein kürzeres Kontextfenster. Das ist nicht die Schuld des
Vietnamesischen. Es ist die Schuld der Daten, aus denen zu lernen wir uns entschieden haben.

Es gibt auch zwei Arten, denselben Buchstaben zu speichern. Die erste ist, ein einziges fertiges
Zeichen zu verwenden. Die zweite ist, zuerst den Grundbuchstaben zu schreiben und danach die Akzente.
Auf dem Bildschirm sehen beide genau gleich aus, aber für die Maschine sind es zwei völlig
verschiedene Folgen von Bytes. Deshalb bringt man den Text vor dem Lernen meist in eine einheitliche
Form.

Nach dem Teil über die Schrift machen wir dasselbe mit Bildern und Klängen. Ein kleines Bild wird in
vierundsechzig Quadrate geteilt, und jedes Quadrat wird durch eine Zahl aus einem Wörterbuch ersetzt.
Ein Stück Sprache wird in kurze Abschnitte geteilt, und auch jeder Abschnitt wird durch einige Zahlen
ersetzt. Wenn alles eine Zahl ist, kann ein einziges neuronales Netz lesen, zeichnen und sprechen. Es
muss nicht wissen, welche Zahl ein Buchstabe ist, welche ein Bild und welche ein Klang. Es errät nur
die nächste Zahl.

Die Welt dieses Kurses ist sehr klein. In ihr gibt es eine Katze, einen Hund, einen Fisch, einen
Apfel, ein Haus, die Sonne und den Mond. Es gibt acht Hintergrundfarben, es gibt eine linke und eine
rechte Seite, es gibt ein, zwei, drei oder vier Tiere. Manchmal gibt es ein Schild mit ein paar
Großbuchstaben. Die Welt ist so klein, damit wir jede Antwort prüfen können: Ob das Modell recht oder
unrecht hat, ist eine Frage des Zählens und keine Frage des Gefühls. Ein kleines Modell, das auf einem
Laptop läuft, kann nicht alles wissen, aber es kann uns jedes Rädchen im Inneren deutlich zeigen.

Führe jede Zelle aus, ändere versuchsweise eine Zahl und sieh dann, was anders wird. Wenn etwas kaputt
geht, mach dir keine Sorgen: Öffne das Kapitel noch einmal und fang von vorne an. So zu lernen ist
langsamer als zu überfliegen, aber es bleibt viel länger im Gedächtnis.
"""

RUSSIAN = """\
Компьютер не умеет читать буквы. Он знает только числа. Чтобы машина могла прочитать предложение, мы
должны сначала разрезать его на маленькие кусочки, а затем дать каждому кусочку номер. Такой кусочек
называется токеном. В этом курсе вы своими руками напишете программу, которая режет текст, без готовой
библиотеки, и поймёте, почему каждая строка должна быть на своём месте.

Идея очень проста. Вначале каждый байт является токеном. Затем мы считаем, какие два токена чаще всего
стоят рядом, и соединяем их в один новый токен. Мы повторяем это несколько сотен или несколько тысяч
раз. Слова, которые встречаются часто, постепенно становятся одним токеном, а редкие слова по-прежнему
складываются из нескольких кусочков. Ни одно слово не остаётся без внимания, потому что в худшем
случае у нас всё ещё есть байты.

Во вьетнамском языке много диакритических знаков. Такая буква, как e с двумя знаками, имеет и
циркумфлекс, и акут, а в памяти занимает три байта. Если словарь учился только на английском языке, он
никогда не видел эти три байта вместе, и поэтому ему приходится тратить три токена на одну букву. За то
же содержание человек, который пишет по-вьетнамски, должен платить за большее число токенов, дольше
ждать и получать более короткое окно контекста. Это не вина вьетнамского языка. Это вина данных,
которые мы выбрали для обучения.

Есть также два способа хранить одну и ту же букву. Первый способ состоит в том, чтобы использовать один
готовый символ. Второй способ состоит в том, чтобы сначала записать основную букву, а после неё знаки.
На экране оба способа выглядят совершенно одинаково, но для машины это две совсем разные строки байтов.
Поэтому перед обучением текст обычно приводят к единой форме.

После части о письме мы сделаем то же самое с картинками и звуком. Маленькая картинка делится на
шестьдесят четыре квадрата, и каждый квадрат заменяется числом из словаря. Отрезок речи делится на
короткие кадры, и каждый кадр тоже заменяется несколькими числами. Когда всё становится числом, одна
нейронная сеть может читать, рисовать и говорить. Ей не нужно знать, какое число является буквой,
какое картинкой, а какое звуком. Она только угадывает следующее число.

Мир этого курса очень мал. В нём есть кошка, собака, рыба, яблоко, дом, солнце и луна. Есть восемь
цветов фона, есть левая и правая сторона, есть одно, два, три или четыре животных. Иногда есть
табличка с несколькими заглавными буквами. Мир так мал для того, чтобы мы могли проверить каждый ответ:
права модель или нет, это вопрос подсчёта, а не вопрос ощущения. Маленькая модель, которая работает на
ноутбуке, не может знать всего, но она может дать нам ясно увидеть каждое колёсико внутри.

Запустите каждую ячейку, попробуйте изменить какое-нибудь число, а затем посмотрите, что изменится.
Если что-то сломается, не беспокойтесь: откройте главу снова и начните сначала. Учиться так медленнее,
чем просматривать бегло, но это гораздо дольше остаётся в памяти.
"""

JAPANESE = """\
コンピュータは文字を読むことができません。知っているのは数だけです。
機械に文を読ませるには、まず文を小さな断片に切り、次にそれぞれの断片に番号を付けなければなりません。
このような断片をトークンと呼びます。この講座では、既成のライブラリを使わずに、文章を切るプログラムを
自分の手で書きます。そして、なぜ一行一行が必要なのかを理解します。

考え方はとても簡単です。はじめは、どのバイトも一つのトークンです。
次に、どの二つのトークンが最もよく隣り合うかを数え、それらを一つの新しいトークンにまとめます。
これを数百回、あるいは数千回繰り返します。よく出てくる単語は少しずつ一つのトークンになり、
珍しい単語は相変わらず複数の断片から組み立てられます。
最悪の場合でもバイトが残っているので、取り残される単語はありません。

ベトナム語には多くの声調記号があります。二つの記号が付いた e のような文字は、曲折アクセントと
鋭アクセントの両方を持ち、メモリの中では三バイトを占めます。
語彙が英語だけから学んだものなら、この三つのバイトが一緒にあるのを一度も見たことがないので、
一つの文字に三つのトークンを使わなければなりません。
同じ内容でも、ベトナム語で書く人は、より多くのトークンの代金を払い、より長く待ち、
より短い文脈の窓しか得られません。それはベトナム語のせいではありません。
私たちが学習のために選んだデータのせいです。

同じ文字を保存する方法も二つあります。一つ目の方法は、出来合いの一つの文字を使うことです。
二つ目の方法は、まず基本の文字を書き、その後に記号を書くことです。
画面の上では二つはまったく同じに見えますが、機械にとってはまったく異なる二つのバイト列です。
そのため、学習の前に、ふつうは文章を一つの形に正規化します。

文字の部分の後で、絵と音についても同じことをします。小さな絵は六十四個の正方形に分けられ、
それぞれの正方形は辞書の中の一つの数に置き換えられます。
音声の一区間は短いフレームに分けられ、それぞれのフレームもいくつかの数に置き換えられます。
すべてが数になれば、ただ一つのニューラルネットワークが、読み、描き、話すことができます。
どの数が文字で、どの数が絵で、どの数が音なのかを知る必要はありません。ただ次の数を当てるだけです。

この講座の世界はとても小さいものです。そこには猫、犬、魚、りんご、家、太陽、月があります。
背景の色は八つあり、左側と右側があり、動物は一匹、二匹、三匹、または四匹います。
ときどき、いくつかの大文字が書かれた看板があります。
世界がこれほど小さいのは、すべての答えを確かめられるようにするためです。
モデルが正しいか間違っているかは、数えればわかることで、感じ方の問題ではありません。
ノートパソコンで動く小さなモデルがすべてを知ることはできませんが、
中の歯車の一つ一つをはっきりと見せてくれます。

それぞれのセルを実行し、数を一つ変えてみて、何が変わるかを見てください。
何かが壊れても、心配しないでください。章をもう一度開いて、最初から始めてください。
このように学ぶのは流し読みより時間がかかりますが、ずっと長く記憶に残ります。
"""
