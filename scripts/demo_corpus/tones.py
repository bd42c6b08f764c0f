"""Clauses that carry the tone of a message: before the core, after it or as its tail.

The label is the attitude of the writer, and where two attitudes meet, that of the main (or last) clause. Neutral
clauses use words of feeling without taking a side. ` ;; only a b` and ` ;; not a b` name the intents that a clause
goes with. A tail replaces the full stop of the core.
"""

from __future__ import annotations

NEGATIVE_BEFORE = """
I'm not happy at all.
I am [really|seriously|truly] disappointed in you.
This is getting ridiculous.
I don't usually write such mails, but you have driven me to it.
Great, just great, another evening spent on your hotline.
Your staff was always lovely to me, but this time I feel badly let down.
I used to like {company}. Not any more.
Well done, you have managed to lose a loyal customer.
Nobody answers, nobody calls back, nobody cares.
I'm beyond annoyed.
I had hoped for better from you.
Not impressed so far.
First I was amused, by now I'm furious.
It's hard to believe how little you care.
Friendly words on the phone, and then nothing whatsoever happens.
I can't say that I enjoy writing to you yet again.
If this is your idea of service, heaven help us.
You make even simple things a torment.
I waited {n} hours on the line, what a joke.
Sorry, but this is no way to treat people.
The young man in {city} was charming, and of no use whatever.
I have never been so angry with a company.
Your website is beautiful; a pity that nothing else about you is.
After {days} days of silence my patience is gone.
What a hassle this is.
There's nothing good I can say about the last few days with you.
I'm writing this through gritted teeth.
Do you actually want to keep any customers?
Nothing at your place ever goes to plan.
I've been more than patient, and what did I get for it? Silence.
My trust in {company} is at zero.
To call this service would be flattery.
Everyone told me how nice you are. I'm still waiting to see it.
I have rarely been so frustrated.
The lady in {city} smiled a lot; it didn't make up for the chaos.
Here I am again, and not because I missed you.
What on earth is going on over there?
I feel taken for a fool.
It started so well with us, didn't it? Look at it now.
Your advert says "always there for you". I laughed bitterly.
I'm at my wits' end.
Sixth mail. No comment.
If I were any less happy I would be shouting.
Congratulations on the longest queue in {city}.
"""

NEGATIVE_AFTER = """
I'm [fed up|sick and tired] with all this.
Honestly, I expected more.
It's simply not good enough.
You really ought to be ashamed.
The staff was lovely but the whole thing has been a fiasco.
I can't recommend you to anyone, I'm afraid.
I'm not angry with {first}, who tried her best; I'm angry with all the rest of you.
{company} does this so much better.
Thanks for nothing.
I wish I had never become a customer.
Although {first} was polite, I came away feeling like a nuisance.
And please spare me another friendly apology.
Nice adverts, awful reality.
Is anybody there even reading these messages? I doubt it.
What a waste of time and nerves.
Don't tell me that you value my custom, because you clearly don't.
It was good in the beginning, and has gone downhill ever since.
I've lost all trust in you.
Not once in {n} mails did I get a proper answer.
How is it possible to be this slow?
Next time I'll go elsewhere.
It isn't the first time either, and I'm losing my temper.
Brilliant service, if one enjoys being ignored.
As much as I like your shops, dealing with you by mail is a pain.
You can be proud: even my patient grandmother is cross now.
The only thing that works at your place is taking money.
I would give you less than one star if I could.
This has spoilt my whole week.
I hardly dare to hope for an answer, given how useless the last one was.
So much for "customers first".
I'm not satisfied, whatever {first} may have put in your system.
Even a child would find that unacceptable.
I'm losing sleep over this mess.
A bit of competence would be a nice surprise.
{first} was kindness itself, yet the upshot is dreadful.
I regret ever having trusted {company}.
You make me miss my old provider, and that one was bad.
Small wonder that people leave you in droves.
I've had better service from a vending machine.
Words fail me.
Call it what you like, I call it incompetence.
One could cry.
I shall be warning my friends.
That is the last straw.
The nice tone of your letters can't hide how poor all this is.
I wouldn't wish you on my worst enemy.
Not what I'd expect of a firm that charges such prices.
All this stress for nothing.
However hard {first} tried, I remain deeply unhappy.
I'd hoped to be wrong about you. I wasn't.
And to think I once praised you to everybody.
Do better.
"""

NEGATIVE_TAIL = """
, and frankly I'm tired of asking.
, and I am not amused.
, not that anyone of you would care.
, and I'm losing patience with you.
, and this time do it properly for a change.
, which you have bungled {n} times already.
, and spare me your excuses.
, if that isn't too much to ask of such a hopeless outfit.
, and no, I am not pleased about it.
, though I've stopped expecting anything good from you.
, and I must say it's been a miserable experience so far.
, because the last answer I got was worthless.
"""

NEUTRAL_BEFORE = """
I have a question.
Just a quick one.
I hope this is the right address for it.
No complaint, just a request.
I'm neither happy nor unhappy, I merely need to know.
I've read your help page and didn't find the answer.
{first} told me to write to you.
This is about my mail of {date}.
I am writing on behalf of {person}.
I'm not sure who is in charge of this.
Good or bad news, I just need an answer.
Don't worry, nothing terrible has happened.
I'm calm about this and only after the facts.
My colleague loves your shop and my boss hates it; I have no opinion.
Following up on our conversation of {date}.
Second attempt, as the form closed before I was done.
For a friend who isn't online:
It's neither urgent nor dramatic.
I couldn't find a better category in the form.
One matter, in short.
I am new here and don't know how this works yet.
I was given this address by {company}.
As requested, I'm putting it in writing.
Please treat this as a normal enquiry.
I don't want to make a fuss.
Not sure whether this is a problem or just how it is.
I looked at the terrible and the terrific reviews; now I ask you directly.
It is me again, from the mail of {date}.
This may be a silly question.
For the record:
To be clear, this isn't criticism.
I have no strong feelings about it.
{person} and I were wondering about something.
Let me get to the point.
Concerning our phone call:
"""

NEUTRAL_AFTER = """
It isn't urgent.
An answer by {date} is early enough.
Please reply to {email}.
Let me know what you need from me.
I don't mind either way.
No hard feelings whatever the answer is.
I can provide the documents if needed.
I'd like to know before {date}.
If you need anything else, write to {email}.
I can be reached on {phone}.
A short reply will do.
My [husband|wife] {first} can answer questions as well.
It wouldn't be the end of the world if not.
It's not a problem, I'm only asking.
I'm not complaining, just letting you know.
It would be good to have that in writing.
I've no view on whether that is good or bad.
If it can't be done, fine, then tell me so.
Whether the reply is a nice or a nasty one, send it to {email}.
{first} gave me a different answer, hence my question.
Should this be the wrong department, please forward it.
I don't need a call.
Just for planning.
You may answer in English or in my own language.
I'll wait for your message.
Leave a message on {phone} if need be.
Either {phone} or {email} is fine for the reply.
That is all for now.
I'd be neither cross nor overjoyed, I'd simply know.
I'm copying in {fullname}.
Happy or not with the answer, I'd have one.
Please note it in the file.
My secretary can be called on {phone}.
It's for my records.
I will pass it on to {person}.
You'll find the details attached.
Text me on {phone} or don't, as you prefer.
If another team handles that, tell me which.
Best would be before {hour}.
I'm asking out of interest, not in anger.
Use {email} for anything in writing.
"""

NEUTRAL_TAIL = """
, no rush.
, if that helps.
, as discussed with {first} on {date}.
, whenever it suits you.
, and confirm it to {email}.
, as far as I can tell.
, at least that is what {person} wrote.
, according to my notes.
, in case that matters.
"""

POSITIVE_BEFORE = """
First of all, thank you for the wonderful help so far.
I'm [really|very|so] happy with you.
I've been a delighted customer for {n} years. ;; not complaint
You lot are the best. ;; not complaint
I was sceptical about {company}, but you have won me over.
The hold music was awful, but {first} made up for it, what a star.
I can't fault your service.
I never thought I'd enjoy writing to a hotline.
Let me say first how kind {person} in {city} has been.
It's not every day that one is treated so well.
Your shop in {city} is a joy to visit.
You've always been great to us.
Though the start was bumpy, I now wouldn't want to miss you.
My compliments on the new website, it's a pleasure.
I've nothing but good things to say about {first}.
After a bad time elsewhere I'm so glad to be with you.
What a friendly answer I got from {first}, lovely!
Not a day goes by without my being pleased that I joined you. ;; not complaint
Everyone grumbles about you; I really don't see why, you do great work.
You have made my week with your last reply.
Your people are as warm as ever.
The queue was endless and yet I left smiling, thanks to {first}.
I have to say it: you're a cut above the rest.
Every time I call I end up in a good mood.
I'd been warned about you and I have no idea why, it's been splendid.
Thank you, thank you, thank you for last week!
How nice to have real people at the other end.
I wouldn't dream of going anywhere else. ;; not complaint
Whoever trains your staff deserves a bonus.
Slow, yes, but so friendly and thorough that I don't mind a bit.
Just to cheer you up: you're doing splendidly.
My mother and I are your greatest fans. ;; not complaint
It would be hard to be more content than I am with {company}.
The way {first} took care of me last time was touching.
I am impressed, and that doesn't happen often.
What a pleasant change you are after {company}!
I came in cross and went out beaming.
So far everything has been smooth and friendly.
"""

POSITIVE_AFTER = """
You've been brilliant, thank you.
Apart from that I'm very pleased with everything.
Otherwise I can't complain, you do a great job.
Keep up the good work!
I know it will be in good hands with you.
I had my doubts, but your team has been a delight.
Thanks a million, you are always so kind.
Even if this takes a while, I'm more than happy with you.
I've told all my friends how good you are. ;; not complaint
It's never a chore to write to you.
The parcel box was dented, but the people at your end are wonderful.
Say hello to {first}, she was marvellous.
Couldn't be happier with how you look after us. ;; not complaint
No bad word about you from me!
A little trouble now and then doesn't change that I love your service.
I'm so grateful to {person} for all the effort.
By the way, your branch in {city} is superb.
Whatever happens, you have earned my trust.
It's not your fault, and you've been so patient with me.
Compared with {company} you are heaven.
I've rarely seen such a caring team.
Don't change a thing about your staff, they're fantastic.
It was annoying for a moment, until {first} took over and was simply terrific.
You turn even dull things into something pleasant.
Your last answer came within {n} minutes, wow.
I look forward to many more years with you. ;; not complaint
Five stars from me, as ever.
I'm in no way cross, you've been lovely throughout.
Your patience with an old man like me is admirable.
It's people like {first} who make the difference.
There is nothing I would improve about your team. ;; not complaint
Bless you all.
Please give {person} a big hug from me.
I was worried at first, for no reason: you're first-rate.
Rain or shine, you are there for me, cheers!
It could have gone badly and it went beautifully so far.
That's a small thing next to all the good you've done us.
You're a gem.
I can only recommend {company}.
No one else would have gone to such lengths for me.
A huge hug to the whole crew in {city}.
I'm sorry for being grumpy last time, you really are excellent.
Not bad at all how you run things, in fact outstanding.
Everybody at the {city} desk was so sweet to my kids.
It's a relief to be in such capable hands.
"""

POSITIVE_TAIL = """
, and let me add that you've been great about it.
, and thank you for being so patient with me.
, and by the way I think you're doing a fabulous job.
, not that I doubt you, you have never let me down.
, and I'm glad it's you who deals with it.
, and {first} has already been a tremendous help with it.
, which is only a tiny blemish on an excellent record.
, and I'm sure you'll handle it as nicely as always.
, but no harm done, I'm still a big fan of yours.
, and I must say it's been a pleasure so far.
"""

CLAUSES = {
    ("negative", "before"): NEGATIVE_BEFORE,
    ("negative", "after"): NEGATIVE_AFTER,
    ("negative", "tail"): NEGATIVE_TAIL,
    ("neutral", "before"): NEUTRAL_BEFORE,
    ("neutral", "after"): NEUTRAL_AFTER,
    ("neutral", "tail"): NEUTRAL_TAIL,
    ("positive", "before"): POSITIVE_BEFORE,
    ("positive", "after"): POSITIVE_AFTER,
    ("positive", "tail"): POSITIVE_TAIL,
}
